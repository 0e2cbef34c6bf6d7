_base_ = ['./_base_/backbones/lingbot_vit_b.py', './_base_/recipes/eomt_semantic_family.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
