_base_ = ['./_base_/backbones/rpb_swin_s.py', './_base_/recipes/imagenet_swin.py']
model = dict(backbone=_base_.backbone)
