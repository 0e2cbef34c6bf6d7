"""Published classifiers, head included, as weights of MMPreTrain's ``ImageClassifier``."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..models.backbone import Backbone
from .loading import convert_checkpoint, explain, log_report, match_weights
from .report import WeightsError
from .unwrapping import unwrap

# Where a classifier has its last layer, and timm a Swin's.
HEAD = {f'head{fc}.{kind}': f'head.fc.{kind}' for fc in ('', '.fc') for kind in ('weight', 'bias')}


def is_image_classifier(model: nn.Module) -> bool:
    """Say whether a model has a backbone of mmrope and a linear head, as ``LinearClsHead`` is one."""
    backbone, head = getattr(model, 'backbone', None), getattr(model, 'head', None)
    return isinstance(backbone, Backbone) and isinstance(getattr(head, 'fc', None), nn.Linear)


def is_published_classifier(checkpoint: Any) -> bool:
    """Say whether a checkpoint holds a classifier of RoPE-ViT's authors or timm, and not one of MMPreTrain.

    Raises:
        WeightsError: if it holds no weights.
    """
    return not unwrap(checkpoint).state.keys().isdisjoint(HEAD)


def classifier_state_dict(model: nn.Module, checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Convert a published classifier to the names of an ``ImageClassifier``: ``backbone.*`` and ``head.fc.*``.

    Args:
        model: the ``ImageClassifier``, which stays as it is; its backbone gets a report as in ``load_pretrained``.
        checkpoint: in any layout that ``to_mmrope`` knows.
        source: the name of the checkpoint.

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
