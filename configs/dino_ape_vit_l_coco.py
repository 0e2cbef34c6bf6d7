_base_ = ['./_base_/backbones/ape_vit_l.py', './_base_/recipes/dino_vit_l.py']
model = dict(backbone=_base_.backbone)
