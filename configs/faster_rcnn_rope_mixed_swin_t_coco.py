_base_ = ['./_base_/backbones/rope_mixed_swin_t.py', './_base_/recipes/faster_rcnn_swin.py']
model = dict(backbone=_base_.backbone)
