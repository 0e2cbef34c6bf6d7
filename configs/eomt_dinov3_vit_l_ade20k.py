_base_ = ['./_base_/backbones/dinov3_vit_l.py', './_base_/recipes/eomt_semantic_family_l.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
