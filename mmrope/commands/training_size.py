"""The image size of a training and its tests: all pipelines, padding and crops of a config at once."""

import math
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from .checks.config import STAGES, datasets_of, need
from .checks.data import steps_of
from .cli import Size
from .errors import CommandError
from .hosts import scope_of, type_name
from .sizes import LARGEST_STRIDE, reference_size

# Arguments that hold a size, by the step of a pipeline.
SIZED = {
    'Resize': ('scale',),
    'FixScaleResize': ('scale',),
    'RandomResize': ('scale',),
    'RandomChoiceResize': ('scales', 'max_size'),
    'ResizeShortestEdge': ('scale', 'max_size'),
    'RandomCrop': ('crop_size',),
    'CenterCrop': ('crop_size',),
    'Pad': ('size',),
    'Mosaic': ('img_scale',),
    'CachedMosaic': ('img_scale',),
    'RandomMosaic': ('img_scale',),
    'MixUp': ('img_scale',),
    'CachedMixUp': ('img_scale',),
    'RandomAffine': ('border',),
}
# Arguments that hold the size of an image wherever they are found.
ALWAYS_SIZED = ('scale', 'scales', 'img_scale', 'crop_size')
KEEP_SHAPE = ('ResizeShortestEdge', 'Mosaic', 'CachedMosaic', 'RandomMosaic', 'MixUp', 'CachedMixUp', 'RandomAffine')


def set_size(cfg: Config, size: Size) -> None:
    """Train and test at another image size.

    ``N`` scales all sizes of the config so that the shorter side of a test image becomes N, and keeps how they are
    drawn: crops and random scales stay the same share of the image. ``HxW`` resizes images to exactly this size, times
    the factors of a random scale, whatever their shape.

    Args:
        cfg: config of a detector or a segmenter; changed in place.
        size: ``N`` or ``HxW``.

    Raises:
        CommandError: if the pipelines resize in a way for which this is not defined.
    """
    test = next(datasets_of(need(cfg, 'test_dataloader').dataset))
    old = reference_size(test['pipeline'])
    height_first = scope_of(cfg) == 'mmseg'
    loaders = [cfg[f'{stage}_dataloader'] for stage in STAGES if cfg.get(f'{stage}_dataloader')]
    pipelines = [pipeline for loader in loaders for pipeline in _pipelines(loader.dataset)]
    done: set[int] = set()
    for pipeline in [*pipelines, cfg.get('tta_pipeline') or []]:
        for step in steps_of(pipeline):
            if id(step) not in done:  # loaders may share a pipeline
                done.add(id(step))
                _set_step(step, size, old, height_first)
    _set_model(cfg.model, size, old)


def _pipelines(dataset: Any) -> Iterator[Any]:
    """Yield the pipelines of a data set: its own, as a mix of several images has one, and those within it."""
    if dataset.get('pipeline'):
        yield dataset['pipeline']
    for inner in [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets') or ():
        yield from _pipelines(inner)


def _set_step(step: Any, size: Size, old: int, height_first: bool) -> None:
    name = type_name(step)
    keys = [key for key in SIZED.get(name, ()) if step.get(key) not in (None, (0, 0), [0, 0])]
    for key in () if name in SIZED else ALWAYS_SIZED:
        if step.get(key):
            raise CommandError(f'{size.text}: a pipeline has {name} with {key}, whose size cannot be set')
    if not keys or step.get('crop_type', 'absolute').startswith('relative'):
        return
    if size.kind == 'scaled':
        step.update({key: _scaled(step[key], size.height, old) for key in keys})
        return
    if name in KEEP_SHAPE or step.get('resize_type') in KEEP_SHAPE:
        raise CommandError(f'{size.text}: a pipeline has {name}, which takes no exact size: give the size as N')
    for key in keys:
        if key == 'scales':
            step.update(scales=[_exact(scale, size, old) for scale in step[key]], keep_ratio=False)
        elif key == 'scale':
            several = isinstance(step[key][0] if isinstance(step[key], (tuple, list)) else 0, (tuple, list))
            scale = [_exact(one, size, old) for one in step[key]] if several else _exact(step[key], size, old)
            step.update(scale=scale, keep_ratio=False)
        elif step.get('crop_type') == 'absolute_range' and step[key][0] != step[key][1]:
            step[key] = _scaled(step[key], min(size), old)  # both sides are drawn from this range
        else:
            step[key] = (
                (size.height, size.width) if name == 'RandomCrop' and height_first else (size.width, size.height)
            )
            step.update({'crop_type': 'absolute'} if 'crop_type' in step else {})


def _exact(scale: Any, size: Size, old: int) -> tuple[int, int]:
    """Return the width and height of an image that the config resizes to ``scale``."""
    shorter = min(scale) if isinstance(scale, (tuple, list)) else scale
    return _scaled((size.width, size.height), shorter, old)


def _set_model(model: Any, size: Size, old: int) -> None:
    """Set the padding of the data preprocessor, the sliding windows and the grid of an absolute embedding."""
    preprocessor, backbone = model.get('data_preprocessor') or {}, model.get('backbone') or {}
    exact = (size.height, size.width)
    for padding in (preprocessor, preprocessor.get('test_cfg') or {}):
        if padding.get('size'):
            padding['size'] = exact if size.kind == 'exact' else _scaled(tuple(padding['size']), size.height, old)
    test = model.get('test_cfg') or {}
    for key in ('crop_size', 'stride') if test.get('mode') == 'slide' else ():
        test[key] = exact if size.kind == 'exact' else _scaled(tuple(test[key]), size.height, old)
    if preprocessor.get('pad_size_divisor', 1) > LARGEST_STRIDE:
        divisor = preprocessor['pad_size_divisor']
        preprocessor['pad_size_divisor'] = (
            math.gcd(*exact) if size.kind == 'exact' else _scaled(divisor, size.height, old)
        )
    for augment in preprocessor.get('batch_augments') or ():
        for key in ('size', 'random_size_range', 'scale'):
            if not augment.get(key):
                continue
            if size.kind == 'exact' and key != 'size':
                raise CommandError(f'{size.text}: data_preprocessor has {type_name(augment)}: give the size as N')
            augment[key] = exact if size.kind == 'exact' else _scaled(tuple(augment[key]), size.height, old)
    if backbone.get('ape') and backbone.get('img_size'):
        grid = backbone['img_size']
        backbone['img_size'] = exact if size.kind == 'exact' else _scaled(grid, size.height, old)


def _scaled(value: Any, new: int, old: int) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_scaled(part, new, old) for part in value)
    return max(1, value * new // old) if value > 0 else -(-value * new // old)
