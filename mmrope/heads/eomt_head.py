"""EoMT as a head of MMDetection's ``MaskFormer``, for instances and panoptic segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.model import BaseModule
from torch import Tensor

from ..models import EoMT
from ..models.open_tokens import split_open

NO_OBJECT_WEIGHT = 0.1
# The losses of Mask2Former, and the costs by which queries are matched to objects.
LOSS_CLS = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=2.0)
LOSS_MASK = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0)
LOSS_DICE = dict(type='mmdet.DiceLoss', use_sigmoid=True, activate=True, naive_dice=True, eps=1.0, loss_weight=5.0)
TRAIN_CFG = dict(
    num_points=12544,
    oversample_ratio=3.0,
    importance_sample_ratio=0.75,
    assigner=dict(
        type='mmdet.HungarianAssigner',
        match_costs=[
            dict(type='mmdet.ClassificationCost', weight=2.0),
            dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
            dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
        ],
    ),
    sampler=dict(type='mmdet.MaskPseudoSampler'),
)


def completed(loss: Mapping[str, Any] | None, default: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loss as it is or, without a ``type``, the default with these settings."""
    given = dict(loss or {})
    return given if 'type' in given else {**default, **given}


class EoMTHead(Mask2FormerHead):
    """Head of MMDetection's ``MaskFormer`` that runs the open blocks of a backbone (:class:`mmrope.models.EoMT`).

    Losses, matching and inference are those of MMDetection's Mask2Former head. There is no decoder, and no neck.

    Args:
        embed_dims: channels of the backbone's tokens.
        num_things_classes: number of classes of things.
        num_stuff_classes: number of classes of stuff; 0 for instance segmentation.
        num_queries: number of queries.
        num_blocks: ``open_blocks`` of the backbone.
        patch_size: ``patch_size`` of the backbone.
        loss_cls: loss of the classes, by default the cross-entropy of Mask2Former. Without ``class_weight``, "no
            object" has a tenth of the weight of a class. A loss without a ``type`` changes settings of the default.
        loss_mask: loss of the masks' points, by default the cross-entropy of Mask2Former.
        loss_dice: loss of whole masks, by default the dice loss of Mask2Former.
        train_cfg: ``assigner``, ``sampler``, ``num_points``, ``oversample_ratio`` and ``importance_sample_ratio``;
            those that are not given are Mask2Former's.
        test_cfg: settings of MMDetection's fusion head.
        init_cfg: initialisation, as in MMEngine.
    """

    def __init__(
        self,
        embed_dims: int,
        num_things_classes: int,
        num_stuff_classes: int = 0,
        num_queries: int = 200,
        num_blocks: int = 3,
        patch_size: int = 16,
        loss_cls: Mapping[str, Any] | None = None,
        loss_mask: Mapping[str, Any] | None = None,
        loss_dice: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        BaseModule.__init__(self, init_cfg)  # that of Mask2FormerHead would build decoders
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.num_queries = num_queries
        self.eomt = EoMT(embed_dims, self.num_classes, num_queries, num_blocks, patch_size)
        loss_cls = completed(loss_cls, LOSS_CLS)
        self.class_weight = loss_cls.get('class_weight') or [1.0] * self.num_classes + [NO_OBJECT_WEIGHT]
        self.loss_cls = MODELS.build({**loss_cls, 'class_weight': self.class_weight})
        self.loss_mask = MODELS.build(completed(loss_mask, LOSS_MASK))
        self.loss_dice = MODELS.build(completed(loss_dice, LOSS_DICE))
        self.train_cfg, self.test_cfg = {**TRAIN_CFG, **(train_cfg or {})}, test_cfg
        self.assigner = TASK_UTILS.build(self.train_cfg['assigner'])
        self.sampler = TASK_UTILS.build(self.train_cfg['sampler'], default_args=dict(context=self))
        for name in ('num_points', 'oversample_ratio', 'importance_sample_ratio'):
            setattr(self, name, self.train_cfg[name])

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says."""
        BaseModule.init_weights(self)

    def forward(self, x: Sequence[Any], batch_data_samples: Any = None) -> tuple[list[Tensor], list[Tensor]]:
        """Predict the logits of classes and masks, of each prediction that :class:`mmrope.models.EoMT` makes.

        Args:
            x: output of a backbone with ``open_blocks``.
            batch_data_samples: not used.

        Raises:
            ValueError: if the backbone has no open blocks, or not as many as the head.
        """
        tokens = split_open(x)[1]
        if tokens is None:
            raise ValueError(
                f'open_blocks of the backbone must be {len(self.eomt.mask_probabilities)} and there must be no neck, '
                f'but {type(self).__name__} got {len(x)} maps and no open tokens'
            )
        predictions = self.eomt(tokens)
        return [prediction.classes for prediction in predictions], [prediction.masks for prediction in predictions]
