_base_ = ['./_base_/backbones/pe_spatial_vit_s.py', './_base_/recipes/mask_rcnn_pe.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone, neck=dict(in_channels=384))
