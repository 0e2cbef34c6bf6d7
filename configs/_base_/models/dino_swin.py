# MMDetection's DINO on a hierarchical backbone: its whole experiment (12 epochs of COCO, batches of 16) and a warm-up.
# The paper does not say how it set these; drop path and warm-up are this project's choice.
# An experiment merges one of ../backbones into model.backbone.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
model = dict(
    backbone=dict(_delete_=True, out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[192, 384, 768]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'rope.freqs': dict(lr_mult=0.1, decay_mult=0.0),
        }
    )
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1),
]
