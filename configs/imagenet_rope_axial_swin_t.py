_base_ = ['./_base_/backbones/rope_axial_swin_t.py', './_base_/recipes/imagenet_swin.py']
model = dict(backbone=_base_.backbone)
