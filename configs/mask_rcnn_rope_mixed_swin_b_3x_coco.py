_base_ = [
    './_base_/backbones/rope_mixed_swin_b.py',
    './_base_/models/mask_rcnn_swin.py',
    './_base_/datasets/coco_instance_ms_crop.py',
    './_base_/schedules/swin_3x.py',
    './_base_/detection_runtime.py',
]
# MMDetection has no Mask R-CNN on Swin-B: schedule and drop path are those of S, this project's choice.
model = dict(backbone=_base_.backbone, neck=dict(in_channels=[128, 256, 512, 1024]))
