"""Published EoMT models, head included: those of the authors and of Hugging Face transformers."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..models import EoMT
from ..models.backbone import Backbone
from .loading import convert_checkpoint, explain, log_report, match_weights
from .report import WeightsError
from .unwrapping import WRAPPERS

# Parts of a head by the names of its authors and of transformers, and by those of mmrope's EoMT.
HEAD = (
    (r'(?:network\.q|query)\.weight', 'queries'),
    (r'(?:network\.class_head|class_predictor)\.(\w+)', r'classes.\1'),
    (r'network\.mask_head\.(\d)\.(\w+)', r'masks.\1.\2'),
    (r'network\.upscale\.(\d)\.conv1\.(\w+)', r'upscale.\1.0.\2'),
    (r'network\.upscale\.(\d)\.conv2\.(\w+)', r'upscale.\1.2.\2'),
    (r'network\.upscale\.(\d)\.norm\.(\w+)', r'upscale.\1.3.\2'),
)
TRANSFORMERS = (
    (r'mask_head\.fc1\.', 'network.mask_head.0.'),
    (r'mask_head\.fc2\.', 'network.mask_head.2.'),
    (r'mask_head\.fc3\.', 'network.mask_head.4.'),
    (r'upscale_block\.block\.(\d)\.', r'network.upscale.\1.'),
    (r'\.layernorm2d\.', '.norm.'),
)


def is_published_eomt(checkpoint: Any) -> bool:
    """Return whether a checkpoint holds an EoMT under the names of its authors or of transformers."""
    names = {re.sub(r'^(?:network\.q|query)\.weight$', '', name) for name in _weights(checkpoint)}
    return '' in names and bool({'network.class_head.weight', 'class_predictor.weight'} & names)


def eomt_name(model: nn.Module) -> str | None:
    """Return the name of the EoMT within a model with a backbone of mmrope; ``None`` if it has none."""
    if not isinstance(getattr(model, 'backbone', None), Backbone):
        return None
    return next((name for name, module in model.named_modules() if isinstance(module, EoMT)), None)


def eomt_state_dict(model: nn.Module, checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Convert a published EoMT to the names of a segmentor or detector with one.

    Args:
        model: with a backbone of mmrope and an EoMT; it is not changed, and a report is logged as in
            ``load_pretrained``.
        checkpoint: as :func:`is_published_eomt` recognises it.
        source: name of the checkpoint.

    Returns:
        The weights under the names of ``model``.

    Raises:
        WeightsError: if the weights do not fit the backbone, or are differences from other weights.
    """
    ours: Any = model.backbone
    converted = convert_checkpoint(ours, checkpoint, source)
    backbone, report = match_weights(ours, converted, source)
    if report.problems:
        raise WeightsError(explain(ours, converted, report))
    log_report(report)
    head = {head_name(name): value for name, value in _weights(checkpoint).items()}
    named = {f'{eomt_name(model)}.{name}': value for name, value in head.items() if name is not None}
    return {**{f'backbone.{key}': value for key, value in backbone.items()}, **named}


def head_name(name: str) -> str | None:
    """Return the name within :class:`mmrope.models.EoMT` of a tensor of a published head; ``None`` for others."""
    for pattern, replacement in TRANSFORMERS:
        name = re.sub(pattern, replacement, name)
    for pattern, replacement in HEAD:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def _weights(checkpoint: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, without what wrappers insert into their names."""
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else {}
    return {WRAPPERS.sub('', str(name)): value for name, value in state.items() if isinstance(value, Tensor)}
