_base_ = ['./_base_/backbones/eva02_vit_b.py', './_base_/recipes/mask_rcnn_eva02.py']
model = dict(data_preprocessor=_base_.pixels, backbone=dict(**_base_.backbone, frozen_stages=12, window_size=0))
