# Mask R-CNN on a hierarchical backbone, as in MMDetection's Swin configs: the feature pyramid and heads of its R-50.
# Experiments merge one of ../backbones into model.backbone.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
