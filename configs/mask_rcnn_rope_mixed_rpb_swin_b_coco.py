_base_ = [
    './_base_/backbones/rope_mixed_rpb_swin_b.py',
    './_base_/models/mask_rcnn_swin.py',
    'mmdet::_base_/datasets/coco_instance.py',
    './_base_/schedules/swin_1x.py',
    './_base_/detection_runtime.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=[128, 256, 512, 1024]))
