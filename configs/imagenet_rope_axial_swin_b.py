_base_ = ['./_base_/backbones/rope_axial_swin_b.py', './_base_/recipes/imagenet_swin.py']
model = dict(backbone=_base_.backbone, head=dict(in_channels=1024))
