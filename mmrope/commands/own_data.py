"""Configs for the data of a user: all that follows from the data is set, listed and written as a config."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..checkpoints.files import write_whole
from ..datasets.coco_folders import DetectionSet, read_coco_folder
from ..datasets.segmentation_folders import IGNORED, SegmentationSet, read_segmentation_folder
from ..text import few
from .checks.classes import heads_of
from .checks.config import RUNNER_KEYS, STAGES, datasets_of
from .checks.data import reads_panoptic, steps_of
from .cli import Size
from .config import find_config
from .epochs import set_epochs
from .errors import CommandError, errors_of
from .hosts import scope_of, type_name
from .training_size import set_size

DEFAULT_EPOCHS = 36  # for a config that counts iterations
MOST_LISTED = 10
LOADER = 'mmrope.datasets.class_maps.LoadAnnotations'
BOX_CONFIGS = 'faster_rcnn_*, cascade_rcnn_* or dino_*'
Row = tuple[str, str]


@dataclass(frozen=True)
class Choices:
    """The choices of a user.

    Attributes:
        epochs: length of the training; ``None`` for the config's own epochs, or ``DEFAULT_EPOCHS``.
        size: image size; ``None`` for the config's.
        batch_size: images of a process in an iteration; ``None`` for the config's.
        val_fraction: of the images, to validate on, where the data have no such part.
        split_seed: of the choice of these images.
        processes: number of processes of the training.
    """

    epochs: int | None = None
    size: Size | None = None
    batch_size: int | None = None
    val_fraction: float = 0.2
    split_seed: int = 0
    processes: int = 1


@dataclass
class OwnData:
    """Settings that follow from a data set.

    Attributes:
        rows: name and value of each setting.
        files: text of each file to write, by its path.
        sources: file of the user that each file of annotations among them comes from.
    """

    rows: list[Row] = field(default_factory=list)
    files: dict[Path, str] = field(default_factory=dict)
    sources: dict[Path, str] = field(default_factory=dict)


def use_own_data(cfg: Config, root: str, folder: Path, choices: Choices) -> OwnData:
    """Train a config on the data of a folder: classes, heads, metrics, paths, length, batch and size.

    Args:
        cfg: config of a detector or a segmenter; changed in place.
        root: folder of the data.
        folder: where files that the data lack, such as a split, will be.
        choices: of the user.

    Raises:
        ValueError: if the data do not suit the config, or have a fault.
    """
    scope = scope_of(cfg)
    if scope not in ('mmdet', 'mmseg'):
        raise CommandError(f'--data is for detectors and segmenters, and this config is one of {scope}')
    made = OwnData()
    data: DetectionSet | SegmentationSet
    if scope == 'mmdet':
        data = boxes = read_coco_folder(root, choices.val_fraction, choices.split_seed)
        _check_masks(cfg, boxes)
        images = _use_detection_set(cfg, boxes, folder, made)
    else:
        data = maps = read_segmentation_folder(root, choices.val_fraction, choices.split_seed)
        images = _use_segmentation_set(cfg, maps, folder, made)
    made.rows += [('note', note) for note in data.notes]
    made.rows += list(_set_classes(cfg, len(data.classes)))
    if choices.size is not None:
        with errors_of('--size'):
            set_size(cfg, choices.size)
        made.rows.append(('image size', f'{choices.size.text}, in all pipelines'))
    made.rows += _set_length(cfg, images, choices)
    return made


def write_own_data(cfg: Config, made: OwnData, path: Path) -> None:
    """Write the config and the files of its data.

    The config holds no variables, which would have no effect, and nothing that belongs to one run alone.

    Args:
        cfg: after :func:`use_own_data`.
        made: its result.
        path: of the config.
    """
    alone = {'launcher', 'work_dir', 'resume'}
    kept = {key: value for key, value in cfg._cfg_dict.items() if key in (RUNNER_KEYS | {'default_scope'}) - alone}
    comments = '\n'.join(f'# {name}: {value}' for name, value in made.rows)
    for file, text in {**made.files, path: f'{comments}\n{Config(kept).pretty_text}'}.items():
        with write_whole(file) as part:
            part.write_text(text)


def _use_detection_set(cfg: Config, data: DetectionSet, folder: Path, made: OwnData) -> int:
    """Set data loaders and metrics; return the number of images of an epoch."""
    root = os.path.abspath(data.root)
    paths = {}
    for part, coco in data.parts.items():
        paths[part] = _inside(coco.file, root)
        if coco.content is not None:
            file = (folder / f'{part}.json').absolute()
            made.files[file], made.sources[file] = json.dumps(coco.content) + '\n', coco.file
            paths[part] = str(file)
    empty = True
    for stage, part in _stages(cfg, data.parts):
        loader = cfg[f'{stage}_dataloader']
        old = next(datasets_of(loader.dataset))
        new = dict(
            type='CocoDataset',
            data_root=root,
            metainfo=dict(classes=data.classes),
            ann_file=paths[part],
            data_prefix=dict(img=_inside(data.parts[part].images, root)),
            pipeline=old['pipeline'],
        )
        if stage == 'train':
            empty = (old.get('filter_cfg') or {}).get('filter_empty_gt', True)
            new['filter_cfg'] = dict(filter_empty_gt=empty)
        else:
            new['test_mode'] = True
            evaluators = cfg.get(f'{stage}_evaluator') or {}
            evaluators = [evaluators] if isinstance(evaluators, Mapping) else evaluators
            evaluator: Mapping[str, Any] = next((one for one in evaluators if type_name(one) == 'CocoMetric'), {})
            kept = {key: evaluator[key] for key in ('metric', 'classwise') if key in evaluator}
            annotations = os.path.join(root, paths[part])
            cfg[f'{stage}_evaluator'] = dict(type='CocoMetric', ann_file=annotations, **{'metric': 'bbox', **kept})
        _replace(loader, new)
    train, val = data.parts['train'], data.parts['val']
    left = train.names - train.learned
    masks = 'boxes and masks' if data.masks else 'boxes'
    made.rows += [
        ('data', f'{data.root}: {masks}; {train.names} images to train on ({train.file}), {val.names} to validate'),
        ('classes', f'{len(data.classes)}: {few(data.classes, MOST_LISTED)}'),
        ('filter_cfg', f'any size; {left} images without annotations are {"left out" if empty else "kept"}'),
    ]
    return train.learned if empty else train.names


def _use_segmentation_set(cfg: Config, data: SegmentationSet, folder: Path, made: OwnData) -> int:
    """Set data loaders and pipelines; return the number of images of an epoch."""
    root = os.path.abspath(data.root)
    load: dict[str, Any] = dict(type='LoadAnnotations')
    if data.values is not None:
        load = dict(type=LOADER, values=data.values)
        load |= dict(colours=data.colours) if data.colours is not None else {}
    metainfo = dict(classes=data.classes) | (dict(palette=data.palette) if data.palette else {})
    pipelines = [cfg.get('tta_pipeline') or []]
    for stage, part in _stages(cfg, data.parts):
        own = data.parts[part]
        loader = cfg[f'{stage}_dataloader']
        old = next(datasets_of(loader.dataset))
        pipelines.append(old['pipeline'])
        new = dict(
            type='BaseSegDataset',
            data_root=root,
            metainfo=metainfo,
            data_prefix=dict(img_path=_inside(own.images, root), seg_map_path=_inside(own.maps, root)),
            img_suffix=data.suffixes[0],
            seg_map_suffix=data.suffixes[1],
            pipeline=old['pipeline'],
        )
        if not own.whole:
            file = (folder / f'{part}.txt').absolute()
            made.files[file] = '\n'.join(own.names) + '\n'
            new['ann_file'] = str(file)
        _replace(loader, new)
    steps: Iterator[Any] = steps_of(pipelines)
    for step in steps:
        if type_name(step) == 'LoadAnnotations':
            backend = {key: step[key] for key in ('imdecode_backend',) if key in step}
            step.clear()
            step.update(load | backend)
    train, val = data.parts['train'], data.parts['val']
    made.rows += [
        ('data', f'{data.root}: {len(train.names)} images to train on, {len(val.names)} to validate'),
        ('classes', f'{len(data.classes)}: {few(data.classes, MOST_LISTED)}'),
        ('class maps', _describe_values(data)),
    ]
    return len(train.names)


def _describe_values(data: SegmentationSet) -> str:
    if data.values is None:
        return f'values 0 to {len(data.classes) - 1}; {IGNORED} is ignored'
    kind = 'colours' if data.colours is not None else 'values'
    return f'{len(data.values)} {kind}, of the classes {few(map(str, data.values), 2 * MOST_LISTED)}'


def _stages(cfg: Config, parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each stage that the config has, with the part of the data that it reads."""
    for stage in STAGES:
        if cfg.get(f'{stage}_dataloader'):
            yield stage, stage if stage in parts else 'val'


def _inside(path: str, root: str) -> str:
    """Return a path relative to the data root if it lies there, else the absolute one; the root itself is ``''``."""
    inside = os.path.relpath(os.path.abspath(path), root)
    return '' if inside == '.' else os.path.abspath(path) if inside.startswith('..') else inside


def _replace(loader: Any, dataset: dict[str, Any]) -> None:
    """Put a data set into a loader, in place of the innermost one of its wrappers."""
    node, key = loader, 'dataset'
    while 'dataset' in node[key]:
        node = node[key]
    node[key] = dataset


def _check_masks(cfg: Config, data: DetectionSet) -> None:
    """Check that a config that learns masks is given masks, and that none learns panoptic segments.

    Raises:
        CommandError: if it is not so; the sentence says which config to take.
    """
    steps = list(steps_of(next(datasets_of(cfg.train_dataloader.dataset))['pipeline']))
    name = Path(cfg.filename or '').stem
    if any(reads_panoptic(step) for step in steps):
        raise CommandError(
            f'--data takes boxes and masks of things, and {name or "this config"} learns panoptic segments: take one '
            'of eomt_*_coco_instance'
        )
    unmasked, objects = data.unmasked
    if not unmasked or not any(step.get('with_mask') for step in steps):
        return
    advice = f'take one of {BOX_CONFIGS}'
    if name.startswith('mask_rcnn_'):
        try:
            advice = f'take {Path(find_config(name.replace("mask_", "faster_", 1))).stem}, or one of {BOX_CONFIGS}'
        except CommandError:
            pass
    raise CommandError(
        f'{data.root} has {"boxes only" if unmasked == objects else f"no mask for {unmasked} of {objects} boxes"}, and '
        f'{name or "this config"} learns masks: {advice}'
    )


def _set_classes(cfg: Config, number: int) -> Iterator[Row]:
    """Set the number of classes of every head, and weights of classes; yield what was set."""
    if not (heads := heads_of(cfg.model, scope_of(cfg))):
        raise CommandError('the model has no head with a number of classes')
    yield 'num_classes', f'{number} in {", ".join(head.path for head in heads)}'
    for head in heads:
        config: Any = head.config
        if '+' in head.argument:  # of a panoptic head, all of whose classes are things
            config.update(num_things_classes=number, num_stuff_classes=0)
        else:
            config['num_classes'] = number
        yield from _set_parts(config, head.number, number, head.path)
    if fusion := cfg.model.get('panoptic_fusion_head'):
        fusion.update(num_things_classes=number, num_stuff_classes=0)


def _set_parts(node: Any, old: int, number: int, path: str) -> Iterator[Row]:
    """Set the numbers and weights of classes in the parts of a head, such as its losses."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in list(items):
        if key == 'num_classes' and path.rpartition('.')[2].startswith('loss'):
            node[key] = number
        elif key == 'class_weight' and isinstance(value, (list, tuple)):
            node[key] = _weights(value, old, number)
            yield (
                f'{path}.{key}',
                few(map(str, node[key]), MOST_LISTED) if node[key] else 'none: that of all is the same',
            )
        elif not str(key).endswith('head'):
            yield from _set_parts(value, old, number, f'{path}.{key}')


def _weights(weights: Sequence[float], old: int, number: int) -> list[float] | None:
    """Return weights for other classes: the same for each, if it was so, else 1; that of the background is kept.

    Without a background, equal weights change nothing, and MMSegmentation 1.2 looks up the weight of ignored pixels.
    """
    if len(weights) == old:
        return None
    same = weights[0] if len(set(weights[:old])) == 1 else 1.0
    return [same] * number + list(weights[old:])


def _set_length(cfg: Config, images: int, choices: Choices) -> Iterator[Row]:
    """Set epochs, batch and rate; yield what was set."""
    loader, optimizer = cfg.train_dataloader, cfg.optim_wrapper.optimizer
    if choices.batch_size is not None:
        loader.batch_size = choices.batch_size
    epochs = choices.epochs or cfg.train_cfg.get('max_epochs') or DEFAULT_EPOCHS
    node, repeats = loader.dataset, 1
    while 'dataset' in node:
        node, repeats = node['dataset'], repeats * node.get('times', 1)
    own = math.ceil(repeats * images / choices.processes)
    if scope_of(cfg) == 'mmseg':  # norms in a pyramid pooling fail on a last batch of one image
        loader.drop_last = own >= loader.batch_size
    iterations = (math.floor if loader.get('drop_last') else math.ceil)(own / loader.batch_size)
    set_epochs(cfg, epochs, iterations)
    yield (
        'length',
        f'{epochs} epochs of {iterations} iterations (--epochs); validation every {cfg.train_cfg.val_interval}',
    )
    for scheduler in cfg.get('param_scheduler') or []:
        unit = 'epochs' if scheduler.get('by_epoch', True) else 'iterations'
        steps = f', milestones {list(scheduler.milestones)}' if 'milestones' in scheduler else ''
        yield 'schedule', f'{type_name(scheduler)}, {unit} {scheduler.get("begin", 0)} to {scheduler.get("end")}{steps}'
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    batch = choices.processes * loader.batch_size * counts
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    text = f'{choices.processes} x {loader.batch_size} images' + (f' x {counts} accumulated' if counts > 1 else '')
    if base and batch != base:
        adam = 'Adam' in type_name(optimizer)
        old, share = optimizer.lr, f'{batch}/{base}'
        optimizer.lr = float(f'{old * (batch / base) ** (0.5 if adam else 1):.3g}')
        how = f'the square root of {share}, since it is an Adam' if adam else share
        text += f'; rate {optimizer.lr:g}: {old:g} belongs to {base} images and is scaled by {how}'
    else:
        text += f'; rate {optimizer.lr:g}'
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=batch)
    yield 'batch and rate', text
