_base_ = ['./_base_/backbones/eva02_vit_s.py', './_base_/recipes/mask_rcnn_eva02.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone, neck=dict(in_channels=384))
