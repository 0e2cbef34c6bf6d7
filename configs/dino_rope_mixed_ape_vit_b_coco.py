_base_ = ['./_base_/backbones/rope_mixed_ape_vit_b.py', './_base_/recipes/dino_vit.py']
model = dict(backbone=_base_.backbone)
