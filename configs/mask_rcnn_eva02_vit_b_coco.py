_base_ = ['./_base_/backbones/eva02_vit_b.py', './_base_/recipes/mask_rcnn_eva02.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
