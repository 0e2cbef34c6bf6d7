_base_ = ['./_base_/backbones/ape_vit_b.py', './_base_/recipes/imagenet_vit.py']
model = dict(backbone=_base_.backbone)
