# Faster R-CNN on a hierarchical backbone: MMDetection's R-50 with the backbone of mask_rcnn_swin.py. MMDetection has no
# Faster R-CNN on Swin; the pair is this project's choice.
# Experiments merge one of ../backbones into model.backbone.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
