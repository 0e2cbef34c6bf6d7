# DINO on a hierarchical backbone: 12 epochs of COCO. The warm-up is this project's choice: the paper gives none, and
# MMDetection and detrex use none here.
_base_ = [
    '../models/dino_swin.py',
    '../datasets/coco_detection_ms_crop.py',
    '../schedules/dino_12e.py',
    '../detection_runtime.py',
]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    *_base_.param_scheduler,
]
