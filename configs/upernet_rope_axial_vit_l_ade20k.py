_base_ = ['./_base_/backbones/rope_axial_vit_l.py', './_base_/recipes/upernet_vit_l.py']
model = dict(backbone=_base_.backbone)
