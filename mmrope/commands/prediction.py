"""Predictions of images in memory or in files, through the hosts' inferencers."""

import os
import warnings
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import LogRecord
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image as Pillow
from PIL import ImageOps
from torch import nn

from ..engine.complete_checkpoint_hook import CompleteCheckpoint
from .checks.config import check_checkpoint, datasets_of, need
from .checks.data import classes_of
from .cli import parse_pixels
from .config import load_config, prepare_process
from .errors import CommandError, errors_of, sentence
from .hosts import scope_of, type_name
from .images import read_image
from .models import checked, load_whole_model
from .sizes import size_overrides

SOUGHT = ('LoadImageFromFile', 'LoadAnnotations')  # steps that the inferencers look up by name and replace
Image = str | os.PathLike[str] | np.ndarray | Pillow.Image


def _none(*shape: int) -> Any:
    return field(default_factory=lambda: np.zeros(shape, np.float32))


@dataclass
class Prediction:
    """A prediction of one image.

    Attributes:
        boxes: ``(N, 4)`` float32, left, top, right and bottom in pixels of the image.
        scores: ``(N,)`` float32; that of a classifier's class.
        labels: ``(N,)`` numbers of the classes.
        names: names of the classes.
        masks: ``(N, H, W)`` bool; ``None`` from a model without masks.
        class_map: number of the class of each pixel, ``(H, W)``; ``None`` from other models than segmenters.
        error: why the image could not be predicted; ``None`` if it was.
        record: the same in plain numbers, strings and lists, with masks as COCO's run lengths.
        sample: the host's data sample.
    """

    boxes: np.ndarray = _none(0, 4)
    scores: np.ndarray = _none(0)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    names: list[str] = field(default_factory=list)
    masks: np.ndarray | None = None
    class_map: np.ndarray | None = None
    error: str | None = None
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    sample: Any = field(default=None, repr=False)


class Predictor:
    """A detector, segmenter or classifier with its weights.

    Example:
        >>> predictor = mmrope.Predictor('work_dirs/fruit/config.py', 'work_dirs/fruit/epoch_36.pth')  # doctest: +SKIP
        >>> predictor('photo.jpg').names  # doctest: +SKIP
        ['apple', 'apple', 'banana']

    Args:
        config: path of a config, the name of one of mmrope's, or a config of MMDetection, MMSegmentation or MMPreTrain,
            which is changed in place.
        checkpoint: name of the checkpoint, which must hold every parameter.
        score_thr: detections with a lower score are dropped.
        size: image size of the model, ``'N'`` for the shorter side or ``'HxW'``; the config's by default.

    Attributes:
        scope: library of the config, ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``.
        classes: names of the classes.

    Raises:
        ValueError: if there is no such config or checkpoint, or the config is of another library.
        CheckpointError: if the checkpoint leaves a parameter unset, or cannot be loaded as weights only.
    """

    def __init__(self, config: str | Config, checkpoint: str, score_thr: float = 0.3, size: str | None = None) -> None:
        prepare_process()
        cfg = config if isinstance(config, Config) else load_config(config)
        check_checkpoint(checkpoint, 'checkpoint')
        if size is not None:
            try:
                cfg.merge_from_dict(size_overrides(cfg, parse_pixels(str(size))))
            except (ValueError, ArgumentTypeError) as error:
                raise CommandError(f'size: {error}') from error
        scope = scope_of(cfg)
        makers = {'mmdet': _detector, 'mmseg': _segmenter, 'mmpretrain': _classifier}
        if scope not in makers:
            raise CommandError(f'default_scope of the config must be one of {", ".join(makers)}, got {scope!r}')
        self.scope, self.score_thr = scope, score_thr
        cfg.test_dataloader.dataset = next(datasets_of(need(cfg, 'test_dataloader').dataset))
        _name_steps(cfg.test_dataloader.dataset.pipeline)
        with _quiet():
            self.inferencer = makers[scope](cfg, checkpoint)
        self.inferencer.show_progress = False
        model = self.inferencer.model
        meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', None) or {}
        self.classes = list(meta.get('classes') or ())

    def __call__(self, images: Image | Sequence[Image], batch_size: int = 1) -> Any:
        """Predict an image, or several.

        Args:
            images: paths, PIL images, or uint8 arrays: ``(H, W)``, ``(H, W, 3)`` in OpenCV's order, blue first, or
                ``(H, W, 4)``, whose alpha is dropped. Their sizes may differ.
            batch_size: number of images that are predicted at once. A batch that fails, be it for want of memory or
                because its images cannot be stacked, is predicted one by one.

        Returns:
            A :class:`Prediction` of a single image. Of several a list in their order, in which an image that cannot be
            predicted has an ``error`` and nothing else, after a warning.

        Raises:
            ValueError: for a single image that is none.
        """
        if isinstance(images, (str, os.PathLike, np.ndarray, Pillow.Image)):
            return self._predict([as_array(images)])[0]
        if batch_size < 1:
            raise ValueError(f'batch_size must be 1 or more, got {batch_size}')
        predictions: list[Prediction] = []
        for start in range(0, len(images), batch_size):
            predictions += self._batch(images[start : start + batch_size])
        for index, prediction in enumerate(predictions):
            if prediction.error is not None:
                warnings.warn(f'image {index} is not predicted: {prediction.error}', stacklevel=2)
        return predictions

    def _batch(self, images: Sequence[Image]) -> list[Prediction]:
        """Predict images together, or one by one if that fails."""
        arrays: dict[int, np.ndarray] = {}
        predictions: dict[int, Prediction] = {}
        for index, image in enumerate(images):
            try:
                arrays[index] = as_array(image)
            except Exception as error:
                predictions[index] = Prediction(error=sentence(error, hint=''))
        try:
            predictions |= zip(arrays, self._predict(list(arrays.values())))
        except Exception as error:
            for index, array in arrays.items():
                try:
                    predictions[index] = (
                        self._predict([array])[0] if len(arrays) > 1 else Prediction(error=sentence(error, hint=''))
                    )
                except Exception as own:
                    predictions[index] = Prediction(error=sentence(own, hint=''))
        return [predictions[index] for index in range(len(images))]

    def _predict(self, arrays: list[np.ndarray]) -> list[Prediction]:
        """Predict ``(H, W, 3)`` uint8 BGR images in one batch."""
        if not arrays:
            return []
        with _quiet():
            out = self.inferencer(arrays, return_datasamples=True, batch_size=len(arrays))
            if self.scope == 'mmdet':
                return [self._detections(sample) for sample in out['predictions']]
            if self.scope == 'mmseg':
                return [self._segments(sample) for sample in (out if isinstance(out, list) else [out])]
            records = self.inferencer.postprocess(out, None)
        return [self._class_of(record, sample) for record, sample in zip(records, out, strict=True)]

    def draw(self, image: np.ndarray, prediction: Prediction, opacity: float = 0.5) -> np.ndarray:
        """Draw a prediction on its image, ``(H, W, 3)`` uint8 BGR; the image of a classifier may be enlarged.

        Args:
            image: the one that was predicted.
            prediction: its prediction.
            opacity: opacity of masks and segments, from 0 to 1.

        Raises:
            CommandError: if the config names no visualizer.
        """
        rgb = np.ascontiguousarray(image[..., ::-1])
        if self.scope == 'mmpretrain':
            from mmpretrain.visualization import UniversalVisualizer

            short = max(256, min(image.shape[:2]))  # a smaller one has no room for the text
            options = dict(classes=self.classes or None, draw_gt=False, resize=short)
            with _quiet():
                return UniversalVisualizer().visualize_cls(rgb, prediction.sample, **options)[..., ::-1]
        visualizer = self.inferencer.visualizer
        if visualizer is None:
            raise CommandError('the config has no visualizer to draw with')
        visualizer.alpha = opacity
        if self.scope == 'mmseg':
            visualizer.set_dataset_meta(**self.inferencer.model.dataset_meta)
        options = dict(pred_score_thr=-1) if self.scope == 'mmdet' else {}  # low scores are dropped already
        with _quiet(), _same_colours():
            visualizer.add_datasample('', rgb, prediction.sample, draw_gt=False, **options)
            return visualizer.get_image()[..., ::-1]

    def _detections(self, sample: Any) -> Prediction:
        if 'pred_instances' not in sample:  # of a panoptic model
            return Prediction(record=self.inferencer.pred2dict(sample), sample=sample)
        sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= self.score_thr]
        found, masks = sample.pred_instances.numpy(), None
        if 'masks' in found:
            masks = np.asarray(found.masks, dtype=bool)
        names = [self._class(label) for label in found.labels]
        record = {**self.inferencer.pred2dict(sample), 'class_names': names}
        boxes = np.asarray(found.bboxes, dtype=np.float32)
        return Prediction(boxes, found.scores, found.labels, names, masks, record=record, sample=sample)

    def _segments(self, sample: Any) -> Prediction:
        class_map = sample.pred_sem_seg.data[0].cpu().numpy()
        labels, counts = np.unique(class_map, return_counts=True)
        pixels = {self._class(label): int(count) for label, count in zip(labels, counts, strict=True)}
        return Prediction(class_map=class_map, record={'pixels': pixels}, sample=sample)

    def _class_of(self, record: dict[str, Any], sample: Any) -> Prediction:
        record = {**record, 'pred_scores': record['pred_scores'].tolist()}
        label = int(record['pred_label'])
        scores = np.array([record['pred_score']], np.float32)
        return Prediction(
            scores=scores, labels=np.array([label]), names=[self._class(label)], record=record, sample=sample
        )

    def _class(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


def as_array(image: Image) -> np.ndarray:
    """Return an image as the hosts read it: ``(H, W, 3)`` uint8, blue first, turned as its EXIF data says.

    Args:
        image: a path, a PIL image or an array.

    Raises:
        ValueError: if it cannot be read, or is an array of another shape or type.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fspath(image))
    if isinstance(image, Pillow.Image):
        return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1])
    shape: tuple[int, ...] = getattr(image, 'shape', ())
    kind = getattr(image, 'dtype', type(image).__name__)
    channels = shape[2] if len(shape) == 3 else 1
    if not isinstance(image, np.ndarray) or len(shape) not in (2, 3) or channels not in (1, 3, 4) or kind != np.uint8:
        raise CommandError(
            f'an image must be a path, a PIL image or a uint8 array (H, W, 3), got {kind} {tuple(shape)}'
        )
    if 0 in shape:
        raise CommandError(f'an image must have at least one pixel, got shape {tuple(shape)}')
    colours = image.reshape(*shape[:2], channels)
    return np.ascontiguousarray(colours[..., :3] if channels > 1 else colours.repeat(3, axis=2))


def _name_steps(pipeline: list[ConfigDict]) -> None:
    """Replace classes in a test pipeline by their names, by which the inferencers look up some steps."""
    for step in pipeline:
        kind, name = step['type'], type_name(step)
        if name in SOUGHT:
            step['type'] = name
        elif isinstance(kind, type):
            step['type'] = f'{kind.__module__}.{kind.__qualname__}'


def metainfo_of(cfg: Config) -> dict[str, Any]:
    """Return the classes and colours of the data set that a config tests on.

    Raises:
        CommandError: if its classes are a string that is not the path of a file.
    """
    dataset = next(datasets_of(cfg.test_dataloader.dataset))
    kind = dataset['type']
    with DATASETS.switch_scope_and_registry(scope_of(cfg)) as registry:
        kind = registry.get(kind) if isinstance(kind, str) else kind
    known = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    with errors_of('test_dataloader.dataset'):
        classes = kind and classes_of(dataset, kind)
    if classes:
        known['classes'] = classes
        if len(known.get('palette') or ()) != len(classes):
            known['palette'] = np.random.default_rng(0).integers(0, 255, (len(classes), 3)).tolist()
    return known


class _Strict:
    """Mixin of an inferencer: refuses an incomplete checkpoint, and takes classes from the config if that has none."""

    source: str

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict[str, Any], cfg: Config) -> None:
        complete = CompleteCheckpoint(self.source)
        complete.note(model, checkpoint)
        meta = checkpoint.get('meta') or {}
        if not {'dataset_meta', 'CLASSES'} & set(meta):  # the hosts would take COCO's or Cityscapes' classes
            weights = checkpoint.get('state_dict', checkpoint)
            checkpoint = {'state_dict': weights, 'meta': {**meta, 'dataset_meta': metainfo_of(cfg)}}
        with checked(complete, model):
            super()._load_weights_to_model(model, checkpoint, cfg)  # type: ignore[misc]  # of the inferencer's class


@contextmanager
def _same_colours() -> Iterator[None]:
    """Draw masks in the same shades each time: MMDetection takes them from NumPy's global generator."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _detector(cfg: Config, checkpoint: str) -> Any:
    from mmdet.apis import DetInferencer

    kind = type('DetInferencer', (_Strict, DetInferencer), {'source': checkpoint})
    return kind(cfg, checkpoint)


def _segmenter(cfg: Config, checkpoint: str) -> Any:
    from mmseg.apis import MMSegInferencer

    kind = type('MMSegInferencer', (_Strict, MMSegInferencer), {'source': checkpoint})
    return kind(cfg, checkpoint)


def _classifier(cfg: Config, checkpoint: str) -> Any:
    """Build the model for MMPreTrain's inferencer, which would not load a published classifier and accepts gaps."""
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.utils import progress

    progress.disable_progress_bar = True
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model: Any
        model, meta = load_whole_model(cfg, checkpoint)
        model._config, model._dataset_meta = cfg, meta or metainfo_of(cfg)
        return ImageClassificationInferencer(model, pretrained=False, device=get_device())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hosts' warnings about colours, names and registries, which need no action."""
    logger = MMLogger.get_current_instance()

    def no_registry(record: LogRecord) -> bool:
        return not record.getMessage().startswith('Failed to search registry with scope')

    logger.addFilter(no_registry)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.removeFilter(no_registry)
