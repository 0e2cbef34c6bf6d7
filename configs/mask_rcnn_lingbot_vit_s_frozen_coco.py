_base_ = ['./_base_/backbones/lingbot_vit_s.py', './_base_/recipes/mask_rcnn_family.py']
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(**_base_.backbone, frozen_stages=12, window_size=0),
    neck=dict(in_channels=384),
)
