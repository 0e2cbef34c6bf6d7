_base_ = ['./_base_/backbones/rope_mixed_vit_l.py', './_base_/recipes/mask_rcnn_vit.py']
# ViTDet's global blocks, drop path and layer decay for ViT-L.
model = dict(
    backbone=dict(**_base_.backbone, global_attn_indexes=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
