_base_ = ['./_base_/backbones/rope_axial_ape_vit_b.py', './_base_/recipes/mask_rcnn_vit.py']
model = dict(backbone=_base_.backbone)
