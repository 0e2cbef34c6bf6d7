_base_ = ['./_base_/backbones/lingbot_vit_b.py', './_base_/recipes/upernet_family.py']
model = dict(data_preprocessor=_base_.pixels, backbone=dict(**_base_.backbone, frozen_stages=12))
