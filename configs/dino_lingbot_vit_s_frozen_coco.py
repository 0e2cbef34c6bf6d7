_base_ = ['./_base_/backbones/lingbot_vit_s.py', './_base_/recipes/dino_family.py']
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(**_base_.backbone, frozen_stages=12, window_size=0),
    neck=[dict(_base_.model.neck[0], in_channels=384), _base_.model.neck[1]],
)
