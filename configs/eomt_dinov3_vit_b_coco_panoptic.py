_base_ = ['./_base_/backbones/dinov3_vit_b.py', './_base_/recipes/eomt_panoptic.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
