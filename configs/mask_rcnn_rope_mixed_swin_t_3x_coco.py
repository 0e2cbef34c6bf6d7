_base_ = ['./_base_/backbones/rope_mixed_swin_t.py', './_base_/recipes/mask_rcnn_swin_3x.py']
model = dict(backbone=_base_.backbone)
