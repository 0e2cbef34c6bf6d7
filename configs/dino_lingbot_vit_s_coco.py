_base_ = ['./_base_/backbones/lingbot_vit_s.py', './_base_/recipes/dino_family.py']
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=_base_.backbone,
    neck=[dict(_base_.model.neck[0], in_channels=384), _base_.model.neck[1]],
)
