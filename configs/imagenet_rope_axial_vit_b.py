_base_ = ['./_base_/backbones/rope_axial_vit_b.py', './_base_/recipes/imagenet_vit.py']
model = dict(backbone=_base_.backbone)
