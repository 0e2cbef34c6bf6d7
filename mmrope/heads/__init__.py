"""Parts of MMSegmentation's models in which it goes wrong, mended.

This package imports MMSegmentation. Configs name its classes by their full path, ``type='mmrope.heads.SegTTAModel'``,
and nothing else of mmrope imports it.
"""

from functools import reduce
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.models.decode_heads import Mask2FormerHead as HostMask2FormerHead
from mmseg.models.decode_heads import MaskFormerHead as HostMaskFormerHead
from torch import Tensor, nn

# Heads whose seg_logits are sums of class probability x mask probability over their queries, and no logits.
GIVE_PROBABILITIES = (HostMask2FormerHead, HostMaskFormerHead)


class Mask2FormerHead(HostMask2FormerHead):
    """MMSegmentation's Mask2Former head, with maps of the window's size in slide mode.

    The host's head resizes its maps to the ``pad_shape`` of the whole image where the test pads images, and the windows
    then do not fit together.
    """

    def predict(self, x: tuple[Tensor, ...], batch_img_metas: list[dict[str, Any]], test_cfg: Any) -> Tensor:
        """Predict ``(B, classes, H, W)`` probabilities, of the window in slide mode and else of the padded image."""
        window = batch_img_metas[0]['img_shape']
        if isinstance(window, torch.Size):  # which MMSegmentation's slide mode sets, and nothing else
            batch_img_metas = [{**meta, 'pad_shape': window} for meta in batch_img_metas]
        return super().predict(x, batch_img_metas, test_cfg)


class SegTTAModel(BaseTTAModel):
    """Test-time augmentation of a segmentor: the mean of the class probabilities of all views.

    MMSegmentation's own takes softmax or sigmoid of whatever the views hold. It blurs what are probabilities already,
    those of MaskFormer and Mask2Former, and finds the one class of a binary segmentor everywhere.
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
    """Turn ``(classes, H, W)`` scores of a view into probabilities; those of a single class are, by the segmentor."""
    return scores if len(scores) == 1 or isinstance(head, GIVE_PROBABILITIES) else scores.softmax(dim=0)
