"""Changes to the pipeline, the padding and the windows of a config for a test at another image size."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from timm.layers import to_2tuple

from .checks.config import datasets_of, need
from .cli import Size
from .errors import CommandError
from .hosts import scope_of, type_name

LARGEST_STRIDE = 64  # of a map: a padding divisor above it is the size of the image
LONGEST = 100  # times the shorter side: in effect no limit, where an argument is required


def size_overrides(cfg: Config, size: Size, scale_windows: bool = False) -> dict[str, Any]:
    """Return the overrides, for ``Config.merge_from_dict``, that test a config at another size.

    ``N`` keeps the way that the config resizes, and scales all its sides so that the shorter one becomes N: 400 turns
    ``scale=(1333, 800)`` into ``(666, 400)``. ``HxW`` resizes to exactly this size. ``short:N`` resizes the shorter
    side to N, however long the other becomes.

    Args:
        cfg: the config, with a ``test_dataloader``.
        size: the other size.
        scale_windows: whether the backbone's ``window_size`` grows along with the image.

    Raises:
        CommandError: if the pipeline resizes in a way for which this is not defined.
    """
    for dataset in datasets_of(need(cfg, 'test_dataloader').dataset):
        dataset['pipeline'] = list(dataset['pipeline'])  # MMEngine merges nothing into a tuple
    pipelines = list(_pipelines(cfg.test_dataloader.dataset, 'test_dataloader.dataset'))
    overrides: dict[str, Any] = {}
    for path, pipeline in pipelines:
        reference, cropped = reference_size(pipeline), any(type_name(step) == 'CenterCrop' for step in pipeline)
        for step, transform in _steps(pipeline, path):
            for key, value in _resized(transform, reference, size, cropped).items():
                overrides[f'{step}.{key}'] = value
    overrides |= padding_overrides(cfg, size)
    if scale_windows and (window := _window_size(cfg)):
        ratio = min(size.height, size.width) / reference_size(pipelines[0][1])
        overrides['model.backbone.window_size'] = max(1, round(window * ratio))
    return overrides


def reference_size(pipeline: list[dict[str, Any]]) -> int:
    """Return the size of a test pipeline: the shorter side, in pixels, of its crop or else of its resize.

    Raises:
        CommandError: if it does not resize images, or by a factor.
    """
    sides = {type_name(transform): transform for transform in pipeline}
    for name, key in (('CenterCrop', 'crop_size'), ('Resize', 'scale'), ('ResizeShortestEdge', 'scale')):
        if name in sides and sides[name].get(key):
            return min(to_2tuple(sides[name][key]))
    if 'ResizeEdge' in sides and sides['ResizeEdge'].get('edge', 'short') == 'short':
        return sides['ResizeEdge']['scale']
    names = ', '.join(sides) or 'nothing'
    raise CommandError(
        'the test pipeline must have a Resize with a scale, a ResizeShortestEdge or a ResizeEdge of the short edge to '
        f'change the size of, got {names}'
    )


def size_of_tests(cfg: Config) -> tuple[tuple[int, int], str]:
    """Find the test size of a config, ``(H, W)`` in pixels of a landscape image, and what sets it.

    Images that keep their proportions have many sizes. Of those that fit into (1333, 800) this is the largest; if the
    longer side is free, or may exceed twice the shorter one, it is the square of the shorter one. It is rounded up as
    the preprocessor pads images. A config without a size gets 224 x 224.
    """
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    padding = preprocessor.get('test_cfg') or {}
    if padding.get('size'):
        return tuple(padding['size']), 'model.data_preprocessor.test_cfg.size'
    loader = cfg.get('test_dataloader') or {}
    pipeline = next(datasets_of(loader['dataset'])).get('pipeline') if 'dataset' in loader else None
    found = next(((step, sides) for step in reversed(pipeline or ()) if (sides := _sides(step))), None)
    if found is None:
        return (224, 224), 'the config has no test size'
    step, sides = found
    divisor = padding.get('size_divisor') or preprocessor.get('pad_size_divisor') or 1
    height, width = (math.ceil(side / divisor) * divisor for side in sides)
    return (height, width), f'{type_name(step)} of the test pipeline'


def _sides(step: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the height and the width that a step gives images."""
    name = type_name(step)
    value = step.get({'CenterCrop': 'crop_size', 'Pad': 'size'}.get(name, 'scale'))
    if not value or name not in ('CenterCrop', 'Pad', 'Resize', 'ResizeEdge', 'ResizeShortestEdge'):
        return None
    width, height = to_2tuple(value)
    if name == 'Resize' and step.get('keep_ratio'):
        height, width = sorted((height, width))
        return (height, width) if width <= 2 * height else (height, height)
    return height, width


def _pipelines(dataset: Mapping[str, Any], path: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the pipeline of each data set below the wrappers, with its path in the config."""
    if 'dataset' in dataset:
        yield from _pipelines(dataset['dataset'], f'{path}.dataset')
    elif 'datasets' in dataset:
        for index, part in enumerate(dataset['datasets']):
            yield from _pipelines(part, f'{path}.datasets.{index}')
    else:
        yield f'{path}.pipeline', dataset['pipeline']


def _steps(pipeline: Sequence[Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the steps of a pipeline, and those within a step such as ``KeyMapper``, with their paths in the config."""
    for index, transform in enumerate(pipeline):
        yield f'{path}.{index}', transform
        inner = transform.get('transforms', ())
        if all(isinstance(step, Mapping) for step in inner):
            yield from _steps(inner, f'{path}.{index}.transforms')


def _resized(transform: Mapping[str, Any], reference: int, size: Size, cropped: bool) -> dict[str, Any]:
    """Return the arguments of one transform for another size. OpenMMLab's pairs are (width, height)."""
    name = type_name(transform)
    keys = {
        'Resize': ('scale',),
        'ResizeEdge': ('scale',),
        'ResizeShortestEdge': ('scale', 'max_size'),
        'CenterCrop': ('crop_size',),
        'Pad': ('size',),
    }
    sides = {key: transform[key] for key in keys.get(name, ()) if transform.get(key)}
    if not sides:
        return {}
    if size.kind == 'scaled':
        return {key: _scaled(value, size.height, reference) for key, value in sides.items()}
    if size.kind == 'exact':
        return _exact(name, sides, reference, size, cropped)
    if name in ('CenterCrop', 'Pad'):
        raise CommandError(f'{size.text}: the test pipeline has {name}, which gives all images one size: give it as N')
    resized: dict[str, dict[str, Any]] = {
        'Resize': dict(scale=(LONGEST * size.height, size.height), keep_ratio=True),
        'ResizeEdge': dict(scale=size.height),
        'ResizeShortestEdge': dict(scale=size.height, max_size=LONGEST * size.height),
    }
    return resized[name]


def _exact(name: str, sides: dict[str, Any], reference: int, size: Size, cropped: bool) -> dict[str, Any]:
    if name in ('CenterCrop', 'Pad'):
        return {key: (size.width, size.height) for key in sides}
    shorter = min(to_2tuple(sides['scale']))  # more than the reference if a crop follows
    if name == 'Resize':
        return dict(scale=_scaled((size.width, size.height), shorter, reference), keep_ratio=False)
    if cropped and name == 'ResizeEdge':
        return dict(scale=_scaled(max(size.height, size.width), shorter, reference))  # large enough for the crop
    raise CommandError(
        f'{size.text}: the test pipeline has {name}, which keeps the shape of an image: give a size as N'
    )


def padding_overrides(cfg: Config, size: Size) -> dict[str, Any]:
    """Return the overrides that pad images to the size, for a config that pads all to one; divisors of strides stay.

    MMSegmentation's preprocessor may pad each image to a fixed ``(height, width)``; MMDetection's pads all of them to
    one square if its divisor is as large as the images, as in ViTDet.

    Raises:
        CommandError: if the size leaves one side free.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    padding = {
        'test_cfg.size': (preprocessor.get('test_cfg') or {}).get('size'),
        'pad_size_divisor': preprocessor.get('pad_size_divisor', 1),
    }
    if padding['pad_size_divisor'] <= LARGEST_STRIDE:
        del padding['pad_size_divisor']
    overrides = {}
    for key, value in padding.items():
        if value and size.kind == 'short':
            raise CommandError(
                f'{size.text}: model.data_preprocessor.{key}={value} gives all images one size: give it as N'
            )
        if value:
            overrides[f'model.data_preprocessor.{key}'] = _padded(key, value, cfg, size)
    return overrides


def _padded(key: str, value: Any, cfg: Config, size: Size) -> Any:
    if size.kind == 'scaled':
        reference = reference_size(next(_pipelines(need(cfg, 'test_dataloader').dataset, ''))[1])
        return _scaled(tuple(value) if isinstance(value, list) else value, size.height, reference)
    # padding to a divisor of both sides adds nothing
    return (size.height, size.width) if key == 'test_cfg.size' else math.gcd(size.height, size.width)


def _window_size(cfg: Config) -> int:
    """Return the backbone's ``window_size``: its default if the config has none, 0 if the backbone has none."""
    backbone = cfg.model.get('backbone') or {}
    if 'window_size' in backbone or 'type' not in backbone:
        return backbone.get('window_size') or 0
    with MODELS.switch_scope_and_registry(scope_of(cfg)) as registry:
        kind = backbone['type'] if isinstance(backbone['type'], type) else registry.get(backbone['type'])
    if kind is None:
        return 0  # building it says which type is unknown
    of_family = getattr(kind, 'DEFAULTS', {}).get('window_size')
    if of_family is not None:
        return of_family
    parameter = inspect.signature(kind).parameters.get('window_size')
    return parameter.default if parameter and isinstance(parameter.default, int) else 0


def _scaled(value: Any, new: int, old: int) -> Any:
    """Scale sides by ``new / old``, rounded down, as the authors of the ImageNet weights do."""
    if isinstance(value, (tuple, list)):
        return tuple(_scaled(side, new, old) for side in value)
    return max(1, value * new // old)
