# DINO on ViT-L: 12 epochs of COCO with detrex's warm-up. The learning rate falls in epoch 11 as for ViT-B, unlike in
# detrex.
_base_ = [
    '../models/dino_vit_l.py',
    '../datasets/coco_detection_ms_crop.py',
    '../schedules/dino_12e.py',
    '../detection_runtime.py',
]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck.0': dict(lr_mult=0.1)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    *_base_.param_scheduler,
]
