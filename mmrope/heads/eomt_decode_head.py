"""EoMT as a decode head of MMSegmentation's ``EncoderDecoder``."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .eomt_head import EoMTHead
from .segmentation import Mask2FormerHead, size_of_maps


class EoMTDecodeHead(EoMTHead, Mask2FormerHead):
    """Decode head of MMSegmentation's ``EncoderDecoder`` that runs the open blocks of a backbone.

    ``seg_logits`` are no logits, but sums of class probability x mask probability over the queries, as of Mask2Former.

    Args:
        embed_dims: channels of the backbone's tokens.
        num_classes: number of classes.
        num_queries: number of queries.
        num_blocks: ``open_blocks`` of the backbone.
        patch_size: ``patch_size`` of the backbone.
        ignore_index: label of pixels that are not trained on.
        align_corners: how the host resizes predictions of a cascade; not used otherwise.
        settings: ``loss_cls``, ``loss_mask``, ``loss_dice``, ``train_cfg`` and ``init_cfg`` of :class:`EoMTHead`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_classes: int,
        num_queries: int = 100,
        num_blocks: int = 3,
        patch_size: int = 16,
        ignore_index: int = 255,
        align_corners: bool = False,
        **settings: Any,
    ) -> None:
        EoMTHead.__init__(self, embed_dims, num_classes, 0, num_queries, num_blocks, patch_size, **settings)
        self.out_channels = num_classes
        self.ignore_index = ignore_index
        self.align_corners = align_corners

    def predict(self, x: Sequence[Any], batch_img_metas: list[dict[str, Any]], test_cfg: Any) -> Tensor:
        """Predict probabilities ``(B, classes, H, W)`` of the window in slide mode, else of the padded image.

        MMSegmentation's head does the same, but copies the metadata, and sizes cannot be copied while they are traced.
        """
        classes, masks = (outs[-1] for outs in self(x))
        masks = F.interpolate(masks, tuple(size_of_maps(batch_img_metas[0])), mode='bilinear', align_corners=False)
        return torch.einsum('bqc,bqhw->bchw', classes.softmax(dim=-1)[..., :-1], masks.sigmoid())
