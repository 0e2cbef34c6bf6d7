_base_ = ['./_base_/backbones/pe_spatial_vit_b.py', './_base_/recipes/mask_rcnn_pe.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
