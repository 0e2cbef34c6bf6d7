_base_ = ['./_base_/backbones/rope_mixed_vit_b.py', './_base_/recipes/cascade_rcnn_vit.py']
model = dict(backbone=_base_.backbone)
