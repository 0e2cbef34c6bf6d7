"""Predictions on images of one's own, through the inferencers of the hosts, from checkpoints that run no code."""

import glob
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model
from torch import nn

from ..engine.complete_checkpoint import CompleteCheckpoint
from ..engine.preflight import LaunchError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')


class UnreadableImageError(ValueError):
    """A file that is no image."""


class Prediction(NamedTuple):
    """``record`` holds plain numbers, texts and lists; ``picture`` the image with it drawn, ``(H, W, 3)`` uint8 RGB;
    ``class_map`` of a segmenter the class of each pixel, ``(H, W)`` integers.
    """

    record: dict[str, Any]
    picture: np.ndarray
    class_map: np.ndarray | None = None


def find_images(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """List the images that files, folders and globs (``**`` for folders below) name, each once.

    Returns:
        The files, and a sentence for each name that gives none.
    """
    files: dict[Path, None] = {}
    problems = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            found = sorted(other for other in path.iterdir() if other.suffix.lower() in SUFFIXES)
            problem = f'{name} has no images: no files that end in {" ".join(SUFFIXES)}'
        else:
            matches = [path] if path.exists() else map(Path, sorted(glob.glob(str(path), recursive=True)))
            found = [other for other in matches if not other.is_dir()]
            problem = f'{name} does not exist'
        files |= dict.fromkeys(found)
        problems += [] if found else [problem]
    return list(files), problems


class Predictor:
    """A model that predicts one image at a time.

    Args:
        cfg: A config of MMDetection, MMSegmentation or MMPreTrain, by its ``default_scope``.
        checkpoint: The name of the checkpoint, which has to hold every parameter.
        score_thr: The least score of a detection that is drawn.

    Raises:
        LaunchError: If the config is of another library.
        CheckpointError: If the checkpoint leaves a parameter unset, or cannot be loaded as weights only.
    """

    def __init__(self, cfg: Config, checkpoint: str, score_thr: float = 0.3) -> None:
        scope = cfg.get('default_scope')
        makers = {'mmdet': _detector, 'mmseg': _segmenter, 'mmpretrain': _classifier}
        if scope not in makers:
            raise LaunchError(f'default_scope of the config must be one of {", ".join(makers)}, but is {scope!r}')
        self.scope, self.score_thr = scope, score_thr
        with _quiet():
            self.inferencer = makers[scope](cfg, checkpoint)
        self.inferencer.show_progress = False
        model = self.inferencer.model
        meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', None) or {}
        self.classes = list(meta.get('classes') or ())

    def __call__(self, path: Path) -> Prediction:
        """Predict an image.

        Raises:
            UnreadableImageError: If the file cannot be read as one.
        """
        try:
            readable = mmcv.imread(path) is not None
        except Exception:  # each decoder has its own
            readable = False
        if not readable:
            raise UnreadableImageError(f'{path} is no image that can be read')
        with _quiet():
            return getattr(self, f'_{self.scope}')(str(path))

    def _mmdet(self, path: str) -> Prediction:
        out = self.inferencer(path, return_vis=True, pred_score_thr=self.score_thr)
        return Prediction(out['predictions'][0], out['visualization'][0])

    def _mmseg(self, path: str) -> Prediction:
        out = self.inferencer(path, return_vis=True)
        # a single image comes without its list
        class_map, picture = (out[key] for key in ('predictions', 'visualization'))
        class_map, picture = (part[0] if isinstance(part, list) else part for part in (class_map, picture))
        labels, counts = np.unique(class_map, return_counts=True)
        pixels = {self._class(label): int(count) for label, count in zip(labels, counts, strict=True)}
        return Prediction({'pixels': pixels}, picture, class_map)

    def _mmpretrain(self, path: str) -> Prediction:
        (sample,) = self.inferencer(path, return_datasamples=True)
        (record,) = self.inferencer.postprocess([sample], None)
        record['pred_scores'] = record['pred_scores'].tolist()
        from mmpretrain.visualization import UniversalVisualizer

        image = mmcv.imread(path)[..., ::-1]
        short = max(256, min(image.shape[:2]))  # a smaller one has no room for the text
        picture = UniversalVisualizer().visualize_cls(
            image, sample, classes=self.classes or None, draw_gt=False, resize=short
        )
        return Prediction(record, picture)

    def _class(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


class _Strict:
    """An inferencer of MMEngine's that refuses a checkpoint with gaps."""

    source: str

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict[str, Any], cfg: Config) -> None:
        complete = CompleteCheckpoint(self.source)
        complete.note(model, checkpoint)
        super()._load_weights_to_model(model, checkpoint, cfg)
        complete.check(model)


def _detector(cfg: Config, checkpoint: str) -> Any:
    from mmdet.apis import DetInferencer

    kind = type('DetInferencer', (_Strict, DetInferencer), {'source': checkpoint})
    return kind(cfg, checkpoint)


def _segmenter(cfg: Config, checkpoint: str) -> Any:
    from mmseg.apis import MMSegInferencer

    kind = type('MMSegInferencer', (_Strict, MMSegInferencer), {'source': checkpoint})
    return kind(cfg, checkpoint)


def _classifier(cfg: Config, checkpoint: str) -> Any:
    """MMPreTrain's inferencer loads no published classifier and accepts gaps: it is given a model."""
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.registry import DATASETS
    from mmpretrain.utils import progress

    progress.disable_progress_bar = True
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        complete = CompleteCheckpoint(checkpoint)
        complete.note(model, loaded)
        _load_checkpoint_to_model(model, loaded)
        complete.check(model)
        known = getattr(DATASETS.get(cfg.test_dataloader.dataset.type), 'METAINFO', {})
        model._config, model._dataset_meta = cfg, loaded.get('meta', {}).get('dataset_meta') or known
        return ImageClassificationInferencer(model, pretrained=False, device=get_device())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the hosts' warnings about colours and names, which are no mistakes."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
