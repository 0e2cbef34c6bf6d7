"""Checks of one data set of a config: its classes, and what its files hold, by the rules of its own class."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, TRANSFORMS

from .annotations import DataError, Findings, Reading, check_coco
from .class_maps import check_map_sizes, check_maps, check_pairs

# Packages whose transforms do not change what a class map means.
HOSTS = {'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmrope', 'mmseg'}
SPLIT_BY_FOLDERS = {'CustomDataset', 'ImageNet', 'ImageNet21k'}


class Rules(NamedTuple):
    """What is known of the run that reads a data set.

    Attributes:
        scope: Where the steps of its pipeline are looked for.
        training: Whether it is trained on.
        ignored: The labels of pixels that all heads ignore.
        number: How many classes the heads tell apart, for a data set that does not say; ``None`` if they do not either.
    """

    scope: str | None
    training: bool
    ignored: Collection[int]
    number: int | None


def class_of(dataset: Mapping[str, Any], scope: str | None) -> type | None:
    """Return the class of a data set; ``None`` for one that no registry knows, which is for the registry to say."""
    return _resolve(dataset.get('type'), DATASETS, scope)


def _resolve(kind: Any, registry: Any, scope: str | None) -> Any:
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)


def path_of(reader: Mapping[str, Any], name: Any) -> str | None:
    """Return a file or folder of a data set, joined as ``BaseDataset`` does; ``None`` for one not of this machine."""
    if not isinstance(name, str) or (reader.get('backend_args') or {}).get('backend', 'local') != 'local':
        return None
    path = os.path.join(reader.get('data_root') or '', name)
    return path if path and '://' not in path else None


def prefixes_of(reader: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the folders of a data set by what they hold; MMPreTrain takes a single one for that of the images."""
    prefix = reader.get('data_prefix') or {}
    return {'img_path': prefix} if isinstance(prefix, str) else prefix


def classes_of(dataset: Mapping[str, Any], kind: type) -> Sequence[str] | None:
    """Return the classes of a data set: of its config, its class or, in classification, its folders.

    Raises:
        ValueError: If they are a single text that names no file.
    """
    given = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}.get('classes')
    if is_classification(kind) and dataset.get('classes') is not None:
        given = dataset['classes']
    if isinstance(given, str):
        if os.path.isfile(given):
            return list_from_file(given)
        raise ValueError(f'has classes {given!r}, which must be several names: one alone is ({given!r},)')
    folder = path_of(dataset, prefixes_of(dataset).get('img_path', ''))
    split = kind.__name__ in SPLIT_BY_FOLDERS and dataset.get('with_label', True) and not dataset.get('ann_file')
    if given is None and split and not dataset.get('split') and folder and os.path.isdir(folder):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return given


def is_classification(kind: type) -> bool:
    """Say whether a data set is one of MMPreTrain's."""
    return any(base.__module__.startswith('mmpretrain.') for base in kind.__mro__)


def steps_of(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a pipeline, also those that a step like ``TestTimeAug`` holds."""
    if isinstance(pipeline, Mapping):
        if 'type' in pipeline:
            yield pipeline
        for value in pipeline.values():
            yield from steps_of(value)
    elif isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from steps_of(step)


def check_contents(dataset: Mapping[str, Any], kind: type, rules: Rules) -> tuple[str, Findings]:
    """Check what the files of a data set hold, where its class is a ``CocoDataset`` or a ``BaseSegDataset``.

    Args:
        dataset: The config of the data set.
        kind: Its class.
        rules: The rules of the run.

    Returns:
        The file or folder, and what was found about it.

    Raises:
        ValueError: If something is wrong.
    """
    classes = classes_of(dataset, kind)
    path, check = dataset.get('ann_file') or '', None
    bases = {base.__name__: base for base in kind.__mro__}
    images = path_of(dataset, prefixes_of(dataset).get('img_path'))
    if _reads_coco(kind, bases.get('CocoDataset')) and path_of(dataset, path):
        path = path_of(dataset, path)
        check = partial(check_coco, path, _reading(dataset, kind, bases['CocoDataset'], classes, rules))
    elif 'BaseSegDataset' in bases and images:
        path = path_of(dataset, path) if path else images
        rules = rules._replace(number=len(classes)) if classes else rules
        check = partial(_check_segmentation, dataset, kind, rules)
    if check is None:
        return path, Findings([], None)
    try:
        return path, check()
    except DataError as error:
        raise ValueError(f'reads {path}, which {error}') from None


def _reads_coco(kind: type, base: type | None) -> bool:
    """Say whether a data set reads its file as ``CocoDataset`` does; LVIS or panoptic ones have rules of their own."""
    return base is not None and all(
        getattr(kind, name) is getattr(base, name) for name in ('load_data_list', 'parse_data_info')
    )


def _reading(
    dataset: Mapping[str, Any], kind: type, base: type, classes: Sequence[str] | None, rules: Rules
) -> Reading:
    steps = list(steps_of(dataset.get('pipeline')))
    with_masks = [step for step in steps if step.get('with_mask')]
    polygons = any(step.get('poly2mask', True) is False for step in with_masks)
    filters = not dataset.get('test_mode') and kind.filter_data is base.filter_data
    return Reading(
        classes=classes,
        images=path_of(dataset, prefixes_of(dataset).get('img')),
        masks='polygons' if polygons else 'all' if with_masks else 'none',
        training=rules.training,
        filter_cfg=dataset.get('filter_cfg') if filters else None,
        read=_image_reader(steps, rules.scope),
    )


def _image_reader(steps: Sequence[Mapping[str, Any]], scope: str | None) -> Callable[[str], tuple[int, int]]:
    """Return a function that decodes an image as a pipeline does, for its width and height."""
    config = next((step for step in steps if _name(step) == 'LoadImageFromFile'), {'type': 'LoadImageFromFile'})
    load = _Lazy(config, scope)

    def read(path: str) -> tuple[int, int]:
        height, width = load({'img_path': path})['img'].shape[:2]
        return width, height

    return read


class _Lazy:
    """A step of a pipeline that is built when it is first called."""

    def __init__(self, config: Mapping[str, Any], scope: str | None) -> None:
        self.config, self.scope, self.step = config, scope, None

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        if self.step is None:
            with TRANSFORMS.switch_scope_and_registry(self.scope) as registry:
                self.step = registry.build(dict(self.config))
        return self.step(sample)


def _name(step: Mapping[str, Any]) -> str:
    return str(getattr(step['type'], '__name__', step['type'])).rpartition('.')[2]


def _check_segmentation(dataset: Mapping[str, Any], kind: type, rules: Rules) -> Findings:
    """Check images and class maps, listed by the data set itself."""
    arguments = {key: value for key, value in dataset.items() if key not in ('type', 'pipeline')}
    listing = kind(**arguments, pipeline=[], lazy_init=True)
    listing.serialize_data = False
    listing.full_init()
    folders = (listing.data_prefix.get('img_path'), listing.data_prefix.get('seg_map_path'))
    suffixes = (listing.img_suffix, listing.seg_map_suffix)
    listed = bool(listing.ann_file) and os.path.isfile(listing.ann_file)
    samples = listing.data_list
    check_pairs(samples, *folders, suffixes, listed)
    if not folders[1] or rules.number is None:
        return Findings([], None)
    return Findings(_check_class_maps(samples, dataset.get('pipeline') or [], rules), None)


def _check_class_maps(samples: Sequence[dict[str, Any]], pipeline: Sequence, rules: Rules) -> list[str]:
    steps = list(steps_of(pipeline))
    config = next((step for step in steps if _name(step) == 'LoadAnnotations'), {'type': 'LoadAnnotations'})
    loader = _Lazy(config, rules.scope)

    def load(sample: Mapping[str, Any]) -> np.ndarray:
        return loader(dict(sample, seg_fields=[]))['gt_seg_map']

    kinds = [_resolve(step.get('type'), TRANSFORMS, rules.scope) for step in pipeline]
    foreign = any(kind is None or kind.__module__.partition('.')[0] not in HOSTS for kind in kinds)
    resized = [bool(step.get('keep_ratio')) for step in steps if 'Resize' in _name(step)]
    notes = []
    for check in (
        partial(check_maps, samples, load, rules.number, rules.ignored, rules.training),
        partial(check_map_sizes, samples, _image_reader(steps, rules.scope), resized, rules.training),
    ):
        try:
            notes += check()
        except DataError as error:
            if not foreign:  # a transform of the user's may mend it
                raise
            notes.append(str(error))
    return notes


def ignored_by(heads: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the labels that all heads ignore; 255 where a head does not say."""
    labels = [{head.get('ignore_index', 255)} - {None} for head in heads]
    return set.intersection(*labels) if labels else {255}
