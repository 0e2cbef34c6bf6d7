_base_ = ['./_base_/backbones/rope_mixed_ape_vit_l.py', './_base_/recipes/upernet_vit_l.py']
model = dict(backbone=dict(**_base_.backbone, img_size=512))
