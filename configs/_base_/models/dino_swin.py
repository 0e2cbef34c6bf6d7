# DINO on a hierarchical backbone: its last three maps. The drop path is this project's choice; the paper does not say.
# An experiment merges one of ../backbones into model.backbone.
_base_ = './dino.py'
model = dict(
    backbone=dict(_delete_=True, out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[192, 384, 768]),
)
