_base_ = ['./_base_/backbones/pe_spatial_vit_s.py', './_base_/recipes/linear_vit.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone, decode_head=dict(in_channels=384, channels=384))
