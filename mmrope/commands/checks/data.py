"""Checks of one data set of a config: its classes, and its files by the rules of its own class."""

import inspect
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, TRANSFORMS

from ...text import few
from ..hosts import type_name
from .annotations import LARGEST_PARSED, Findings, Reading, check_coco
from .class_maps import check_map_sizes, check_maps
from .files import DataError, check_exist, reading
from .images import ImageReader

# Packages whose transforms do not change the meaning of a class map.
HOSTS = {'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmrope', 'mmseg'}
SPLIT_BY_FOLDERS = {'CustomDataset', 'ImageNet', 'ImageNet21k'}


class Rules(NamedTuple):
    """The run that reads a data set.

    Attributes:
        scope: registry scope of its pipeline.
        training: whether the run is a training.
        ignored: labels of pixels that all heads ignore.
        number: of classes of the heads, for a data set without a list of classes; ``None`` if unknown.
    """

    scope: str | None
    training: bool
    ignored: Collection[int]
    number: int | None


def class_of(dataset: Mapping[str, Any], scope: str | None) -> type | None:
    """Return the class of a data set; ``None`` if it is not registered, which building it reports."""
    return _resolve(dataset.get('type'), DATASETS, scope)


def _resolve(kind: Any, registry: Any, scope: str | None) -> Any:
    """Return the class that a ``type`` names."""
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)


def path_of(reader: Mapping[str, Any], name: Any) -> str | None:
    """Return the path of a file or folder, joined as ``BaseDataset`` does; ``None`` if it is not on this machine."""
    if not isinstance(name, str) or (reader.get('backend_args') or {}).get('backend', 'local') != 'local':
        return None
    path = os.path.join(reader.get('data_root') or '', name)
    return path if path and '://' not in path else None


def prefixes_of(reader: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the folders of a data set by content; in MMPreTrain a single one holds the images."""
    prefix = reader.get('data_prefix') or {}
    return {'img_path': prefix} if isinstance(prefix, str) else prefix


def classes_of(dataset: Mapping[str, Any], kind: type) -> Sequence[str] | None:
    """Return the classes of a data set: of its config, its class or, in classification, its folders.

    Raises:
        ValueError: if they are a string that is not the path of a file.
    """
    given = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}.get('classes')
    if is_classification(kind) and dataset.get('classes') is not None:
        given = dataset['classes']
    if isinstance(given, str):
        if os.path.isfile(given):
            return list_from_file(given)
        raise ValueError(f'has classes {given!r}, which must be a sequence of names, like ({given!r},)')
    folder = path_of(dataset, prefixes_of(dataset).get('img_path', ''))
    split = kind.__name__ in SPLIT_BY_FOLDERS and dataset.get('with_label', True) and not dataset.get('ann_file')
    if given is None and split and not dataset.get('split') and folder and os.path.isdir(folder):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return given


def is_classification(kind: type) -> bool:
    """Say whether a data set is one of MMPreTrain's."""
    return any(base.__module__.startswith('mmpretrain.') for base in kind.__mro__)


def steps_of(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a pipeline, each followed by the steps within it, as of ``TestTimeAug``."""
    if isinstance(pipeline, Mapping):
        if 'type' in pipeline:
            yield pipeline
        pipeline = list(pipeline.values())
    if isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from steps_of(step)


def reads_panoptic(part: Mapping[str, Any]) -> bool:
    """Say whether a step of a pipeline or a metric reads panoptic segments."""
    return type_name(part) in ('LoadPanopticAnnotations', 'CocoPanopticMetric')


def check_contents(dataset: Mapping[str, Any], kind: type, rules: Rules) -> tuple[str, Findings]:
    """Check the files of a data set of a known class.

    Known are ``CocoDataset``, ``BaseSegDataset``, subclasses that read the same files, and MMPreTrain's
    ``CustomDataset`` with a list of labels.

    Args:
        dataset: config of the data set.
        kind: its class.
        rules: of the run.

    Returns:
        The file or folder, and the findings about it.

    Raises:
        ValueError: if something is wrong.
    """
    classes = classes_of(dataset, kind)
    number = len(classes) if classes else rules.number
    bases = {base.__name__: base for base in kind.__mro__}
    file = path_of(dataset, dataset['ann_file']) if dataset.get('ann_file') else None
    images = path_of(dataset, prefixes_of(dataset).get('img_path'))
    path, found = file or images or '', Findings([], None)
    with reading(path, kind.__name__):
        if file and _reads_coco(kind, bases.get('CocoDataset')):
            found = check_coco(file, _reading(dataset, kind, bases['CocoDataset'], classes, rules))
        elif images and 'BaseSegDataset' in bases:
            found = Findings(_check_segmentation(dataset, kind, rules._replace(number=number)), None)
        elif file and kind.__name__ in SPLIT_BY_FOLDERS and os.path.getsize(file) <= LARGEST_PARSED:
            _check_labels(_list_samples(dataset, kind), number)
    return path, found


def _reads_coco(kind: type, base: type | None) -> bool:
    """Say whether a data set reads its file as ``CocoDataset`` does, unlike those for LVIS or panoptic labels."""
    return base is not None and all(
        getattr(kind, name) is getattr(base, name) for name in ('load_data_list', 'parse_data_info')
    )


def _reading(dataset: Mapping[str, Any], kind: Any, base: Any, classes: Sequence[str] | None, rules: Rules) -> Reading:
    pipeline = dataset.get('pipeline')
    with_masks = [step for step in steps_of(pipeline) if step.get('with_mask')]
    polygons = any(step.get('poly2mask', True) is False for step in with_masks)
    filters = not dataset.get('test_mode') and kind.filter_data is base.filter_data
    return Reading(
        classes=classes,
        images=path_of(dataset, prefixes_of(dataset).get('img')),
        masks='polygons' if polygons else 'all' if with_masks else 'none',
        training=rules.training,
        filter_cfg=dataset.get('filter_cfg') if filters else None,
        read=_image_reader(pipeline, rules.scope),
    )


def _image_reader(pipeline: Any, scope: str | None) -> ImageReader:
    load = _build(_step(pipeline, 'LoadImageFromFile') or {'type': 'LoadImageFromFile'}, scope)
    return lambda path: load({'img_path': path})['img'].shape[1::-1]


def _build(step: Mapping[str, Any], scope: str | None) -> Any:
    with TRANSFORMS.switch_scope_and_registry(scope) as registry:
        return registry.build(dict(step))


def _step(pipeline: Any, name: str) -> Mapping[str, Any] | None:
    """Return the first step of a type."""
    return next((step for step in steps_of(pipeline) if type_name(step) == name), None)


def _list_samples(dataset: Mapping[str, Any], kind: type) -> list[dict[str, Any]]:
    """Return the samples of a data set as its own class lists them; none if it cannot be built without loading.

    Raises:
        DataError: if there is no sample, or one without a file.
    """
    parameters = inspect.signature(kind).parameters
    if 'lazy_init' not in parameters and not any(value.kind == value.VAR_KEYWORD for value in parameters.values()):
        return []
    arguments = {key: value for key, value in dataset.items() if key != 'type'}
    listing = kind(**{**arguments, 'pipeline': [], 'lazy_init': True})
    file = dataset.get('ann_file') and path_of(dataset, dataset['ann_file'])
    lines = list_from_file(file) if file and os.path.isfile(file) else []
    blank = [str(i) for i, line in enumerate(lines, 1) if not line.strip()]
    if blank:
        raise DataError(f'has blank lines, which name no image: line {few(blank)}; remove them')
    listing.serialize_data = False
    listing.full_init()
    samples = listing.data_list
    if not samples:
        suffix = getattr(listing, 'img_suffix', None)
        raise DataError('lists no images' + (f' that end in {suffix}: set img_suffix' if suffix else ''))
    for key, what in (('img_path', 'images'), ('seg_map_path', 'class maps')):
        check_exist([sample[key] for sample in samples if sample.get(key)], what)
    return samples


def _check_labels(samples: Sequence[Mapping[str, Any]], number: int | None) -> None:
    """Check the labels of a classification set."""
    labels = {label for sample in samples if isinstance(label := sample.get('gt_label'), int)}
    wrong = sorted(label for label in labels if number is not None and not 0 <= label < number)
    if wrong and number is not None:
        raise DataError(f'has labels of no class: {few(map(str, wrong))}; classes are 0 to {number - 1}')


def _check_segmentation(dataset: Mapping[str, Any], kind: type, rules: Rules) -> list[str]:
    """Check images and class maps, listed by the data set itself and read as by the pipeline; return notes.

    A fault of a map becomes a note if the pipeline has a transform of the user's own, which may mend it.
    """
    samples = [sample for sample in _list_samples(dataset, kind) if 'seg_map_path' in sample]
    pipeline = dataset.get('pipeline') or [{'type': 'mmseg.LoadAnnotations'}]
    step = _step(pipeline, 'LoadAnnotations')
    if not samples or rules.number is None or not step:
        return []
    loader = _build(step, rules.scope)
    kinds = [_resolve(step.get('type'), TRANSFORMS, rules.scope) for step in pipeline if isinstance(step, Mapping)]
    known = [kind for kind in kinds if kind is not None and kind.__module__.partition('.')[0] in HOSTS]
    resized = [bool(step.get('keep_ratio')) for step in steps_of(pipeline) if 'Resize' in type_name(step)]

    def load(sample: Mapping[str, Any]) -> Any:
        return loader(dict(sample, seg_fields=[]))['gt_seg_map']

    try:
        notes = check_maps(samples, load, rules.number, rules.ignored, rules.training)
        return notes + check_map_sizes(samples, _image_reader(pipeline, rules.scope), resized, rules.training)
    except DataError as error:
        if len(known) == len(pipeline):
            raise
        return [str(error)]


def ignored_by(heads: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the labels that all heads ignore; 255 where a head does not say."""
    labels = [{head.get('ignore_index', 255)} - {None} for head in heads]
    return set.intersection(*labels) if labels else {255}
