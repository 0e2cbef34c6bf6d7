_base_ = ['./_base_/backbones/rope_mixed_vit_s.py', './_base_/recipes/mask_rcnn_vit_8x4_accum2.py']
# ViTDet has no size S. The schedule and drop path of B are this project's choice.
model = dict(backbone=_base_.backbone, neck=dict(in_channels=384))
