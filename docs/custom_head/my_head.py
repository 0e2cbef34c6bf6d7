"""A head of one's own: a convolution, and a classifier for every pixel."""

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class OneConvHead(BaseDecodeHead):
    """Takes one map of the backbone; ``BaseDecodeHead`` brings the classifier, the loss and the prediction."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv = ConvModule(self.in_channels, self.channels, 3, padding=1, norm_cfg=self.norm_cfg)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Logits, ``(B, num_classes, H, W)``, from the maps of the backbone."""
        return self.cls_seg(self.conv(self._transform_inputs(inputs)))
