"""Strict loading of a backbone's weights, with a report."""

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model.weight_init import update_init_info
from torch import Tensor

from ..checkpoints.loading import load_checkpoint
from ..checkpoints.sources import SourceError
from ..layers import resize_bias_table, resize_pos_embed
from ..models.backbone import Backbone
from ..registry import WEIGHT_INITIALIZERS
from .advice import (
    FREQS,
    advice,
    assumed_grid,
    axial_theta,
    check_grid,
    compare_heads,
    compare_positions,
    compare_reference,
    compare_theta,
    grid_advice,
    is_axial,
    traits_of,
    traits_of_model,
)
from .known import ungated_names
from .layouts import Converted
from .report import LoadReport, Shape, WeightsError
from .unwrapping import converted_from, unwrap

HEAD = re.compile(r'(head|fc_norm)\.')


@WEIGHT_INITIALIZERS.register_module()
class PretrainedBackbone:
    """Initialiser behind ``init_cfg=dict(type='Pretrained', ...)`` of mmrope's backbones.

    Args:
        checkpoint: as in :func:`load_pretrained`.
        options: other arguments of :func:`load_pretrained`.
    """

    def __init__(self, checkpoint: str, **options: Any) -> None:
        self.checkpoint, self.options = checkpoint, options

    def __call__(self, module: Backbone) -> None:
        """Load the weights into ``module``, and record this for MMEngine's log of initialisation."""
        load_pretrained(module, self.checkpoint, **self.options)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'mmrope.weights: load from {self.checkpoint}')


def load_pretrained(
    model: Backbone,
    checkpoint: str,
    prefix: str | None = None,
    strict: bool = True,
    allow_missing: Sequence[str] = (),
    map_location: Any = 'cpu',
    pos_grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Load the weights of a backbone from a checkpoint in any layout that ``to_mmrope`` knows, and log the report.

    Args:
        model: the backbone; unchanged if this function raises.
        checkpoint: a path, a URL, ``hf-hub:OWNER/NAME[@REVISION][/FILE]`` or ``timm:NAME``.
        prefix: prefix of the backbone's names in the checkpoint; ``None`` to detect it.
        strict: whether weights that do not fit are an error. If not, those that fit are loaded with a warning.
        allow_missing: parameters, by the last parts of their names, that may keep their initial values.
        map_location: as in ``torch.load``.
        pos_grid: grid ``(H, W)`` in tokens that ``pos_embed`` was learned on. ``None`` takes it from the checkpoint,
            if mmrope wrote it, else the grid of the model if it has as many tokens, else a square one.

    Returns:
        The report.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file cannot be fetched, is not a checkpoint or would run code.
        WeightsError: if the weights do not fit.
    """
    try:
        loaded = load_checkpoint(checkpoint, map_location)
    except SourceError as error:
        raise SourceError(f'{error}{ungated_names(checkpoint)}') from error
    converted = convert_checkpoint(model, loaded, checkpoint, prefix)
    if pos_grid is not None:
        converted.pos_grid = check_grid(pos_grid, converted.state)
    return load_converted(model, converted, checkpoint, strict, allow_missing)


def convert_checkpoint(model: Backbone, checkpoint: Any, source: str, prefix: str | None = None) -> Converted:
    """Extract the weights of a backbone from a checkpoint, in mmrope's layout.

    Raises:
        WeightsError: if there are none; the message begins with ``source``.
    """
    heads = model.notes()['num_heads']
    try:
        return converted_from(unwrap(checkpoint, prefix), heads[0] if len(heads) == 1 else None)
    except WeightsError as error:
        raise WeightsError(f'{source}: {error}') from error


def load_converted(
    model: Backbone,
    converted: Converted,
    source: str,
    strict: bool = True,
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Load weights in mmrope's layout; arguments, result and errors as for :func:`load_pretrained`."""
    state, report = match_weights(model, converted, source, allow_missing)
    if report.problems and strict:
        raise WeightsError(f'{explain(model, converted, report)} (strict=False loads what fits)')
    model.load_state_dict(state, strict=False)
    log_report(report)
    return report


def explain(model: Backbone, converted: Converted, report: LoadReport) -> str:
    """Explain which weights do not fit a backbone, and what to change in its config."""
    parts = [grid_advice(report), report.problems]
    patch = converted.state.get('patch_embed.proj.weight')
    if patch is not None and patch.ndim == 4:
        parts.insert(0, advice(traits_of(converted.family, converted.state), traits_of_model(model), report))
    return f'{report.source} does not fit {report.model}: ' + '; '.join(filter(None, parts))


def log_report(report: LoadReport) -> None:
    """Log a report, in the main process only."""
    if is_main_process():
        print_log(str(report), logger='current', level=logging.WARNING if report.problems else logging.INFO)


def match_weights(
    model: Backbone, converted: Converted, source: str, allow_missing: Sequence[str] = ()
) -> tuple[dict[str, Tensor], LoadReport]:
    """Match each tensor with a parameter of a backbone; change nothing.

    Returns:
        The weights that can be loaded, resized to the grid or window of the model, and the report.
    """
    report = LoadReport(
        source,
        type(model).__name__,
        dropped=dict(converted.dropped),
        assumed=list(converted.assumed),
        taken=converted.taken,
    )
    targets, state = model.state_dict(), {}
    compare_heads(model, converted, report)
    compare_theta(model, converted, report)
    compare_positions(model, converted, report)
    learned = dict(model.named_parameters())
    for key, value in converted.state.items():
        if key not in targets:
            reason = _why_unused(model, key, value)
            if reason is None:
                report.left_over.append(key)
            else:
                report.dropped[key] = reason
        elif FREQS.fullmatch(key) and key in learned and axial_theta(value) is not None:
            report.left_over.append(key)  # fixed axial frequencies are no start for learned ones
        else:
            resized = _resize(model, key, value, targets[key], converted.pos_grid, report)
            shapes: tuple[Shape, Shape] = tuple(value.shape), tuple(targets[key].shape)
            if resized.shape == targets[key].shape:
                state[key] = resized
                if resized is not value:
                    report.resized[key] = shapes
                    if shapes[0] == shapes[1] and converted.pos_grid:  # as many positions, on another grid
                        report.resized[key] = converted.pos_grid, model.pos_grid
            else:
                report.misfits[key] = shapes
    if any(map(FREQS.fullmatch, targets)) and not any(map(FREQS.fullmatch, (*learned, *converted.state))):
        report.assumed.append('frequencies in float32 (the authors of DINOv3 publish theirs rounded to bfloat16)')
    report.loaded = list(state)
    report.renamed = {key: old for key, old in converted.renamed.items() if key in state}
    for key in targets:
        if key not in state and key not in report.misfits:
            allowed = any(key == name or key.endswith(f'.{name}') for name in allow_missing)
            (report.initial if allowed or model.weights_may_miss(key) else report.missing).append(key)
    return state, report


def _why_unused(model: Backbone, key: str, value: Tensor) -> str | None:
    """Return why a tensor without a parameter in the model is not needed; ``None`` if it should have one."""
    if HEAD.match(key):
        return 'classification head'
    constants = dict(model.named_buffers()).get(key) if FREQS.fullmatch(key) else None
    if constants is not None and is_axial(value, constants):
        return 'axial frequencies, which are computed'
    return model.weights_unused(key)


def _resize(
    model: Backbone,
    key: str,
    value: Tensor,
    target: Tensor,
    pos_grid: tuple[int, int] | None,
    report: LoadReport,
) -> Tensor:
    """Resize a position embedding or a bias table to the model's size; return other tensors unchanged."""
    if value.ndim != target.ndim or value.shape[-1] != target.shape[-1]:
        return value
    if key == 'pos_embed':
        grid = pos_grid or assumed_grid(value.shape[1], model.pos_grid, report)
        if grid is not None:
            compare_reference(model, grid, report)
        return value if grid is None else resize_pos_embed(value, grid, model.pos_grid, model.pos_embed_resize)
    if key.endswith('.relative_position_bias_table') and value.shape != target.shape:
        window_size = model.get_submodule(key.rpartition('.')[0]).window_size
        side = math.isqrt(len(value))
        return resize_bias_table(value, window_size) if side**2 == len(value) and side % 2 else value
    return value
