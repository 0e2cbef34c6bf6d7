_base_ = ['./_base_/backbones/rope_axial_ape_vit_b.py', './_base_/recipes/mask_rcnn_vit_8x4_accum2.py']
model = dict(backbone=_base_.backbone)
