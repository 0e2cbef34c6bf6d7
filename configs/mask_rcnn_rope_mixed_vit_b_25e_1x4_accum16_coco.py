_base_ = ['./_base_/backbones/rope_mixed_vit_b.py', './_base_/recipes/mask_rcnn_vit_25e_1x4_accum16.py']
model = dict(backbone=_base_.backbone)
