# DINO on a plain backbone: 12 epochs of COCO, with the pyramid at the backbone's learning rate.
_base_ = [
    '../models/dino_vit.py',
    '../datasets/coco_detection_ms_crop.py',
    '../schedules/dino_12e.py',
    '../detection_runtime.py',
]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck.0': dict(lr_mult=0.1)}))
