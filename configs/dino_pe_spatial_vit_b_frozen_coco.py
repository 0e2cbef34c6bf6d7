_base_ = ['./_base_/backbones/pe_spatial_vit_b.py', './_base_/recipes/dino_family.py']
model = dict(data_preprocessor=_base_.pixels, backbone=dict(**_base_.backbone, frozen_stages=12, window_size=0))
