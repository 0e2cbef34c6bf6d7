_base_ = ['./_base_/backbones/rope_mixed_vit_l.py', './_base_/recipes/imagenet_vit.py']
model = dict(backbone=_base_.backbone, head=dict(in_channels=1024))
