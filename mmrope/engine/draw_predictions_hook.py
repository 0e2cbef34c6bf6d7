"""Predictions of a test, drawn into a folder or dumped into a file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.evaluator import DumpResults
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from ..registry import HOOKS


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Hook that draws the predictions of a test into a folder, one file per image, for any host.

    A file has the same path in this folder as its image has in the image folder of the data set, or, of several data
    sets, in the folder that holds the image folders of all. Images are read with the orientation that the pipeline
    gives them.

    Args:
        folder: folder of the drawings.
        score_thr: lowest score of a detector's predictions to draw.
        show: whether to show them in a window as well.
        wait_time: seconds for which each is shown.
        backend_args: arguments of the storage backend that the images are read from.
    """

    def __init__(
        self,
        folder: str,
        score_thr: float = 0.3,
        show: bool = False,
        wait_time: float = 0.0,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.backend_args = os.path.abspath(folder), backend_args
        self.score_thr, self.options = score_thr, dict(show=show, wait_time=wait_time)

    def before_test(self, runner: Runner) -> None:
        """Find the folder of the images, and make the drawing of segmentation maps faster."""
        datasets = list(innermost(runner.test_dataloader.dataset))
        self._images = folder_of([getattr(dataset, 'data_prefix', None) for dataset in datasets])
        steps = [step for dataset in datasets for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ())]
        as_stored = any('ignore_orientation' in str(getattr(step, 'color_type', '')) for step in steps)
        self._flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
        if hasattr(runner.visualizer, '_get_center_loc'):
            runner.visualizer._get_center_loc = label_place

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draw the predictions of a batch."""
        for sample in outputs or ():
            name = name_below(sample.img_path, self._images)
            content = np.frombuffer(get(sample.img_path, backend_args=self.backend_args), np.uint8)
            image = cv2.cvtColor(cv2.imdecode(content, self._flags), cv2.COLOR_BGR2RGB)
            self._draw(runner.visualizer, image, sample, name)

    def after_test(self, runner: Runner) -> None:
        """Log where the drawings are."""
        runner.logger.info(f'The drawn predictions are in {self.folder}')

    def _draw(self, visualizer: Visualizer, image: Any, sample: Any, name: str) -> None:
        options = dict(data_sample=sample, out_file=os.path.join(self.folder, name), **self.options)
        if hasattr(visualizer, 'visualize_cls'):  # MMPreTrain's
            visualizer.visualize_cls(image, name=name, **options)
        elif 'pred_instances' in sample:
            visualizer.add_datasample(name, image, pred_score_thr=self.score_thr, **options)
        else:
            visualizer.add_datasample(name, image, **options)


def innermost(dataset: Any) -> Iterator[Any]:
    """Yield the data sets below wrappers such as ``ConcatDataset`` and ``RepeatDataset``."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    else:
        for one in inner:
            yield from innermost(one)


def folder_of(prefixes: Sequence[Mapping[str, str | None] | str | None]) -> str | None:
    """Return the folder that holds the images of all data sets, which have these ``data_prefix``; ``None`` without."""
    named = [prefix if isinstance(prefix, Mapping) else dict(img=prefix) for prefix in prefixes]
    folders = {os.path.abspath(folder) for prefix in named if (folder := prefix.get('img_path') or prefix.get('img'))}
    return os.path.commonpath(folders) if folders else None


def name_below(path: str, folder: str | None) -> str:
    """Return the path of a file relative to a folder that it is in, or its name if it is in none."""
    below = os.path.relpath(path, folder) if folder else os.pardir
    return os.path.basename(path) if below.startswith(os.pardir) else below


def label_place(mask: np.ndarray) -> np.ndarray:
    """Return the place ``(x, y)`` for a class's name: the middle of the row with most pixels of the class.

    MMSegmentation's own ``_get_center_loc`` finds the same place in a sorted list of all pixels, which takes longer
    than the rest of a test. This function can go once that is faster.

    Args:
        mask: ``(H, W)``, 1 at the pixels of the class, of which there is at least one.
    """
    y = (mask == 1).sum(1).argmax()
    columns = np.flatnonzero(mask[y] == 1)
    return np.array([columns[len(columns) // 2], y])


class DumpPredictions(DumpResults):
    """Metric that dumps predictions to a pickle file: masks as RLE, class maps as int16, no ground truth, no logits."""

    default_prefix = 'predictions'
    dropped = (
        'gt_instances', 'ignored_instances', 'gt_panoptic_seg', 'gt_sem_seg', 'seg_logits', 'gt_label', 'gt_score',
    )  # fmt: skip

    def process(self, data_batch: Any, predictions: Sequence[dict[str, Any]]) -> None:
        """Keep the predictions of one batch."""
        kept = [{key: value for key, value in sample.items() if key not in self.dropped} for sample in predictions]
        super().process(data_batch, kept)
        for sample in self.results[len(self.results) - len(kept) :]:
            masks = sample.get('pred_instances', {}).get('masks')
            if isinstance(masks, torch.Tensor):
                sample['pred_instances']['masks'] = _encode_masks(masks)
            if 'pred_sem_seg' in sample:
                sample['pred_sem_seg']['data'] = sample['pred_sem_seg']['data'].to(torch.int16)


def _encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    from pycocotools.mask import encode  # comes with the detection host

    return [encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]
