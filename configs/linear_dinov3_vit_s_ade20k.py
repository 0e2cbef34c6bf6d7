_base_ = ['./_base_/backbones/dinov3_vit_s.py', './_base_/recipes/linear_vit.py']
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(**_base_.backbone, final_norm=True),
    decode_head=dict(in_channels=384, channels=384),
)
