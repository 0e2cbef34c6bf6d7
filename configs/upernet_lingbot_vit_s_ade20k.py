_base_ = ['./_base_/backbones/lingbot_vit_s.py', './_base_/recipes/upernet_family.py']
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=_base_.backbone,
    neck=dict(in_channels=[384] * 4, out_channels=384),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)
