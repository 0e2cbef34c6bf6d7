"""Predictions of single images, through the hosts' inferencers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model
from torch import nn

from ..engine.complete_checkpoint_hook import CompleteCheckpoint
from .checks.config import datasets_of
from .errors import CommandError
from .hosts import scope_of

SOUGHT = ('LoadImageFromFile', 'LoadAnnotations')  # steps that the inferencers look up by name and replace


class Prediction(NamedTuple):
    """A prediction of one image.

    Attributes:
        record: plain numbers, strings and lists.
        sample: the host's data sample.
        class_map: class of each pixel, ``(H, W)`` integers; for segmenters only.
    """

    record: dict[str, Any]
    sample: Any
    class_map: np.ndarray | None = None


class Predictor:
    """A model that predicts one image at a time.

    Args:
        cfg: config of MMDetection, MMSegmentation or MMPreTrain; changed in place.
        checkpoint: name of the checkpoint, which must hold every parameter.
        score_thr: detections with a lower score are dropped.

    Attributes:
        scope: library of the config, ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``.
        classes: names of the classes.

    Raises:
        CommandError: if the config is of another library.
        CheckpointError: if the checkpoint leaves a parameter unset, or cannot be loaded as weights only.
    """

    def __init__(self, cfg: Config, checkpoint: str, score_thr: float = 0.3) -> None:
        scope = scope_of(cfg)
        makers = {'mmdet': _detector, 'mmseg': _segmenter, 'mmpretrain': _classifier}
        if scope not in makers:
            raise CommandError(f'default_scope of the config must be one of {", ".join(makers)}, got {scope!r}')
        self.scope, self.score_thr = scope, score_thr
        cfg.test_dataloader.dataset = next(datasets_of(cfg.test_dataloader.dataset))
        _name_steps(cfg.test_dataloader.dataset.pipeline)
        with _quiet():
            self.inferencer = makers[scope](cfg, checkpoint)
        self.inferencer.show_progress = False
        model = self.inferencer.model
        meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', None) or {}
        self.classes = list(meta.get('classes') or ())

    def __call__(self, image: np.ndarray) -> Prediction:
        """Predict an image, ``(H, W, 3)`` uint8 BGR."""
        with _quiet():
            out = self.inferencer(image, return_datasamples=True)
            if self.scope == 'mmdet':
                return self._detections(out['predictions'][0])
            if self.scope == 'mmseg':
                return self._segments(out)
            (record,) = self.inferencer.postprocess(out, None)
        return Prediction({**record, 'pred_scores': record['pred_scores'].tolist()}, out[0])

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
        if 'pred_instances' in sample:
            sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= self.score_thr]
        record = self.inferencer.pred2dict(sample)
        if 'labels' in record:
            record['class_names'] = [self._class(label) for label in record['labels']]
        return Prediction(record, sample)

    def _segments(self, sample: Any) -> Prediction:
        class_map = sample.pred_sem_seg.data[0].cpu().numpy()
        labels, counts = np.unique(class_map, return_counts=True)
        pixels = {self._class(label): int(count) for label, count in zip(labels, counts, strict=True)}
        return Prediction({'pixels': pixels}, sample, class_map)

    def _class(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


def _name_steps(pipeline: list[ConfigDict]) -> None:
    """Replace classes in a test pipeline by their names, by which the inferencers look up some steps."""
    for step in pipeline:
        kind = step['type']
        name = getattr(kind, '__name__', kind).rpartition('.')[2]
        if name in SOUGHT:
            step['type'] = name
        elif isinstance(kind, type):
            step['type'] = f'{kind.__module__}.{kind.__qualname__}'


def _metainfo(cfg: Config) -> dict[str, Any]:
    """Return the classes and colours of the data set that a config tests on."""
    dataset = cfg.test_dataloader.dataset
    kind = dataset.type
    with DATASETS.switch_scope_and_registry(scope_of(cfg)) as registry:
        kind = registry.get(kind) if isinstance(kind, str) else kind
    known = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    classes, palette = known.get('classes'), known.get('palette')
    if isinstance(classes, (list, tuple)) and len(palette or ()) != len(classes):
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
            checkpoint = {'state_dict': weights, 'meta': {**meta, 'dataset_meta': _metainfo(cfg)}}
        super()._load_weights_to_model(model, checkpoint, cfg)  # type: ignore[misc]  # of the inferencer it is mixed in
        complete.check(model)


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
        model = MODELS.build(cfg.model)
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        complete = CompleteCheckpoint(checkpoint)
        complete.note(model, loaded)
        _load_checkpoint_to_model(model, loaded)
        complete.check(model)
        model._config, model._dataset_meta = cfg, loaded.get('meta', {}).get('dataset_meta') or _metainfo(cfg)
        return ImageClassificationInferencer(model, pretrained=False, device=get_device())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hosts' warnings about colours and names, which need no action."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
