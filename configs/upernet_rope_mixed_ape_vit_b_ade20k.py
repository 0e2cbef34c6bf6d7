_base_ = ['./_base_/backbones/rope_mixed_ape_vit_b.py', './_base_/recipes/upernet_vit.py']
model = dict(backbone=dict(**_base_.backbone, img_size=512))
