_base_ = [
    './_base_/backbones/rope_mixed_swin_s.py',
    './_base_/models/mask_rcnn_swin.py',
    './_base_/datasets/coco_instance_ms_crop.py',
    './_base_/schedules/swin_3x.py',
    './_base_/detection_runtime.py',
]
model = dict(backbone=_base_.backbone)
# MMDetection trains Swin-S in mixed precision, and Swin-T both ways (here with --amp).
optim_wrapper = dict(type='AmpOptimWrapper')
