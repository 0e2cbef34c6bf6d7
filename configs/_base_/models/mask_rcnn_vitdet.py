# Mask R-CNN on a plain backbone as in ViTDet (arXiv 2203.16527): a simple feature pyramid, two convolutions in the RPN,
# four and a linear layer in the box head, LayerNorm in neck and heads. In training and in tests every image is padded
# to 1024 x 1024 after normalisation.
# RoPE does not need the padding: model.data_preprocessor.pad_size_divisor=32 tests images in their own shape. Models
# with an absolute embedding (ape) have only seen whole squares.
# Experiments merge one of ../backbones into model.backbone.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
norm_cfg = dict(type='mmrope.LayerNorm2d', eps=1e-6)

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, window_size=14, global_attn_indexes=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=dict(
        _delete_=True,
        type='mmrope.SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        scales=(4, 2, 1, 0.5),
        num_outs=5,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
