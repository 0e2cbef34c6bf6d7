"""Corrected versions of MMSegmentation classes."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.models.decode_heads import Mask2FormerHead as HostMask2FormerHead
from mmseg.models.decode_heads import MaskFormerHead as HostMaskFormerHead
from torch import Tensor, nn

# Heads whose seg_logits are no logits, but sums of class probability x mask probability over the queries.
GIVE_PROBABILITIES = (HostMask2FormerHead, HostMaskFormerHead)


class Mask2FormerHead(HostMask2FormerHead):
    """MMSegmentation's Mask2Former head, with maps of the window's size in slide mode.

    If the test pipeline pads images, the host's head resizes the maps of every window to the ``pad_shape`` of the whole
    image, and the windows do not fit together.
    """

    def predict(self, x: tuple[Tensor, ...], batch_img_metas: list[dict[str, Any]], test_cfg: Any) -> Tensor:
        """Predict probabilities ``(B, classes, H, W)`` of the window in slide mode, else of the padded image."""
        size = size_of_maps(batch_img_metas[0])
        return super().predict(x, [{**meta, 'pad_shape': size} for meta in batch_img_metas], test_cfg)


def size_of_maps(meta: Mapping[str, Any]) -> Sequence[int]:
    """Return the height and width of a window in slide mode, else of the padded image."""
    size = meta['img_shape']
    if isinstance(size, torch.Size):  # only MMSegmentation's slide mode sets a Size
        return size
    return meta.get('pad_shape', size)[:2]


class SegTTAModel(BaseTTAModel):
    """Test-time augmentation of a segmentor: the mean of the class probabilities of all views.

    MMSegmentation's class applies softmax or sigmoid to any output. This blurs the outputs of MaskFormer and
    Mask2Former, which are probabilities already, and predicts the single class of a binary segmentor everywhere.
    """

    def merge_preds(self, data_samples_list: list[list[Any]]) -> list[Any]:
        """Merge the views of each image into one sample, with ``seg_logits`` (the mean) and ``pred_sem_seg``."""
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: list[Any]) -> Any:
        head: Any = self.module.decode_head
        head = head[-1] if isinstance(head, nn.ModuleList) else head  # the last of a cascade
        mean = reduce(torch.add, (_probabilities(view.seg_logits.data, head) for view in views)) / len(views)
        if len(mean) > 1:
            prediction = mean.argmax(dim=0, keepdim=True)
        else:
            prediction = (mean > head.threshold).to(mean)
        merged = views[0]
        merged.set_data({'seg_logits': PixelData(data=mean), 'pred_sem_seg': PixelData(data=prediction)})
        return merged


def _probabilities(scores: Tensor, head: nn.Module) -> Tensor:
    """Turn the scores ``(classes, H, W)`` of a view into probabilities; those of a single class already are."""
    return scores if len(scores) == 1 or isinstance(head, GIVE_PROBABILITIES) else scores.softmax(dim=0)
