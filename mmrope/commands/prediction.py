"""Predictions on images, through the inferencers of the hosts, from checkpoints that run no code."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
from .images import note_on_depth, read_image
from .runner import sentence

SOUGHT = ('LoadImageFromFile', 'LoadAnnotations')  # the steps that the inferencers replace, found by these names


class Prediction(NamedTuple):
    """``record`` holds plain numbers, texts and lists; ``picture`` the image with it drawn, ``(H, W, 3)`` uint8 RGB;
    ``class_map`` of a segmenter the class of each pixel, ``(H, W)`` integers; ``note`` what is odd about the image.
    """

    record: dict[str, Any]
    picture: np.ndarray
    class_map: np.ndarray | None = None
    note: str | None = None


class Predictor:
    """A model that predicts one image at a time.

    Args:
        cfg: A config of MMDetection, MMSegmentation or MMPreTrain, by its ``default_scope`` or its model's class.
        checkpoint: The name of the checkpoint, which has to hold every parameter.
        score_thr: The least score of a detection that is kept, in the record and in the picture.
        opacity: Of masks and segments in the picture, from 0 to 1.

    Raises:
        CommandError: If the config is of another library.
        CheckpointError: If the checkpoint leaves a parameter unset, or cannot be loaded as weights only.
    """

    def __init__(self, cfg: Config, checkpoint: str, score_thr: float = 0.3, opacity: float = 0.5) -> None:
        scope = scope_of(cfg)
        makers = {'mmdet': _detector, 'mmseg': _segmenter, 'mmpretrain': _classifier}
        if scope not in makers:
            raise CommandError(f'default_scope of the config must be one of {", ".join(makers)}, but is {scope!r}')
        self.scope, self.opacity = scope, opacity
        cfg.test_dataloader.dataset = next(datasets_of(cfg.test_dataloader.dataset))
        _name_steps(cfg.test_dataloader.dataset.pipeline)
        with _quiet():
            self.inferencer = makers[scope](cfg, checkpoint)
        self.inferencer.show_progress = False
        self.inferencer.score_thr = score_thr
        model = self.inferencer.model
        meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', None) or {}
        self.classes = list(meta.get('classes') or ())

    def __call__(self, path: Path) -> Prediction:
        """Predict an image.

        Raises:
            UnreadableImageError: If the file cannot be read as one.
            CommandError: If the model cannot predict it.
        """
        image = read_image(path)
        try:
            with _quiet():
                prediction = getattr(self, f'_{self.scope}')(str(path), image)
        except Exception as error:
            height, width = image.shape[:2]
            raise CommandError(f'{path} of {width} x {height} pixels was not predicted: {sentence(error)}') from error
        return prediction._replace(note=note_on_depth(path, image))

    def _mmdet(self, path: str, image: np.ndarray) -> Prediction:
        self.inferencer.visualizer.alpha = self.opacity
        out = self.inferencer(path, return_vis=True, pred_score_thr=-1)  # all that are left
        record = out['predictions'][0]
        if 'labels' in record:
            record['class_names'] = [self._class(label) for label in record['labels']]
        return Prediction(record, out['visualization'][0])

    def _mmseg(self, path: str, image: np.ndarray) -> Prediction:
        out = self.inferencer(path, return_vis=True, opacity=self.opacity)
        # a single image comes without its list
        class_map, picture = (out[key] for key in ('predictions', 'visualization'))
        class_map, picture = (part[0] if isinstance(part, list) else part for part in (class_map, picture))
        labels, counts = np.unique(class_map, return_counts=True)
        pixels = {self._class(label): int(count) for label, count in zip(labels, counts, strict=True)}
        return Prediction({'pixels': pixels}, picture, class_map)

    def _mmpretrain(self, path: str, image: np.ndarray) -> Prediction:
        (sample,) = self.inferencer(path, return_datasamples=True)
        (record,) = self.inferencer.postprocess([sample], None)
        record['pred_scores'] = record['pred_scores'].tolist()
        from mmpretrain.visualization import UniversalVisualizer

        short = max(256, min(image.shape[:2]))  # a smaller one has no room for the text
        picture = UniversalVisualizer().visualize_cls(
            image[..., ::-1], sample, classes=self.classes or None, draw_gt=False, resize=short
        )
        return Prediction(record, picture)

    def _class(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


def _name_steps(pipeline: list[ConfigDict]) -> None:
    """Name the steps of a test pipeline by text: the inferencers look for some of them so, and find no class."""
    for step in pipeline:
        kind = step['type']
        name = getattr(kind, '__name__', kind).rpartition('.')[2]
        if name in SOUGHT:
            step['type'] = name
        elif isinstance(kind, type):
            step['type'] = f'{kind.__module__}.{kind.__qualname__}'


def _metainfo(cfg: Config) -> dict[str, Any]:
    """The classes and colours of the data set that a config tests on."""
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
    """An inferencer of MMEngine's that refuses a checkpoint with gaps, and takes classes from the config if need be."""

    source: str

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict[str, Any], cfg: Config) -> None:
        complete = CompleteCheckpoint(self.source)
        complete.note(model, checkpoint)
        meta = checkpoint.get('meta') or {}
        if not {'dataset_meta', 'CLASSES'} & set(meta):  # the hosts would take COCO's or Cityscapes' classes
            weights = checkpoint.get('state_dict', checkpoint)
            checkpoint = {'state_dict': weights, 'meta': {**meta, 'dataset_meta': _metainfo(cfg)}}
        super()._load_weights_to_model(model, checkpoint, cfg)
        complete.check(model)


class _Sure:
    """A detector's inferencer that drops detections below ``score_thr``, and draws the same image the same way."""

    score_thr: float

    def forward(self, inputs: Any, **kwargs: Any) -> list[Any]:
        samples = super().forward(inputs, **kwargs)
        for sample in samples:
            if 'pred_instances' in sample:
                sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= self.score_thr]
        return samples

    def visualize(self, *args: Any, **kwargs: Any) -> Any:
        state = np.random.get_state()
        np.random.seed(0)  # for the shades of masks
        try:
            return super().visualize(*args, **kwargs)
        finally:
            np.random.set_state(state)


def _detector(cfg: Config, checkpoint: str) -> Any:
    from mmdet.apis import DetInferencer

    kind = type('DetInferencer', (_Strict, _Sure, DetInferencer), {'source': checkpoint})
    return kind(cfg, checkpoint)


def _segmenter(cfg: Config, checkpoint: str) -> Any:
    from mmseg.apis import MMSegInferencer

    kind = type('MMSegInferencer', (_Strict, MMSegInferencer), {'source': checkpoint})
    return kind(cfg, checkpoint)


def _classifier(cfg: Config, checkpoint: str) -> Any:
    """MMPreTrain's inferencer loads no published classifier and accepts gaps: it is given a model."""
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
    """Without the hosts' warnings about colours and names, which are no mistakes."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
