"""Published classifiers, head included, as weights of MMPreTrain's ``ImageClassifier``."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..models.backbone import Backbone
from .loading import convert_checkpoint, explain, log_report, match_weights
from .report import WeightsError
from .unwrapping import unwrap

# Names of a classifier's last layer; timm has a Swin's below `head.fc`.
HEAD = {f'head{fc}.{kind}': f'head.fc.{kind}' for fc in ('', '.fc') for kind in ('weight', 'bias')}


def is_image_classifier(model: nn.Module) -> bool:
    """Return whether a model has a backbone of mmrope and a linear head, such as ``LinearClsHead``."""
    backbone, head = getattr(model, 'backbone', None), getattr(model, 'head', None)
    return isinstance(backbone, Backbone) and isinstance(getattr(head, 'fc', None), nn.Linear)


def is_published_classifier(checkpoint: Any) -> bool:
    """Return whether a checkpoint holds a classifier of RoPE-ViT's authors or timm, not of MMPreTrain.

    Raises:
        WeightsError: if it holds no weights.
    """
    return not unwrap(checkpoint).state.keys().isdisjoint(HEAD)


def classifier_state_dict(model: nn.Module, checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Convert a published classifier to the names of an ``ImageClassifier``: ``backbone.*`` and ``head.fc.*``.

    Args:
        model: the ``ImageClassifier``, which is not changed; a report is logged as in ``load_pretrained``.
        checkpoint: weights in any layout that ``to_mmrope`` knows.
        source: name of the checkpoint.

    Returns:
        The weights under the names of ``model``.

    Raises:
        WeightsError: if the weights do not fit the backbone.
    """
    ours: Any = model.backbone
    converted = convert_checkpoint(ours, checkpoint, source)
    head = {new: converted.state.pop(old) for old, new in HEAD.items() if old in converted.state}
    backbone, report = match_weights(ours, converted, source)
    if report.problems:
        raise WeightsError(explain(ours, converted, report))
    log_report(report)
    return {**{f'backbone.{key}': value for key, value in backbone.items()}, **head}
