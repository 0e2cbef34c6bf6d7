_base_ = ['./_base_/backbones/rpb_swin_b.py', './_base_/recipes/dino_swin.py']
model = dict(backbone=_base_.backbone, neck=dict(in_channels=[256, 512, 1024]))
