# DINO on a hierarchical backbone: its last three maps. The drop path and the warm-up are this project's choice; the
# paper does not say, and MMDetection and detrex have no warm-up here.
# An experiment merges one of ../backbones into model.backbone.
_base_ = './dino.py'
model = dict(
    backbone=dict(_delete_=True, out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[192, 384, 768]),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    *_base_.param_scheduler,
]
