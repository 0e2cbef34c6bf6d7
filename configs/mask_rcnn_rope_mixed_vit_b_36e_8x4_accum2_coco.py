_base_ = ['./_base_/backbones/rope_mixed_vit_b.py', './_base_/recipes/mask_rcnn_vit_36e_8x4_accum2.py']
model = dict(backbone=_base_.backbone)
