# Cascade R-CNN on a hierarchical backbone: MMDetection's R-50 with the backbone of mask_rcnn_swin.py, which is this
# project's choice. Swin's authors train a Cascade Mask R-CNN with four convolutions in each box head.
# Experiments merge one of ../backbones into model.backbone.
_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
