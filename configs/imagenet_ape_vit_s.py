_base_ = ['./_base_/backbones/ape_vit_s.py', './_base_/recipes/imagenet_vit.py']
model = dict(backbone=_base_.backbone, head=dict(in_channels=384))
