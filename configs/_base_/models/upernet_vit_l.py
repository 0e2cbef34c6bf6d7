# UperNet on ViT-L, which MMSegmentation does not have: the drop path, that of the pretraining, is this project's
# choice.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './upernet_vit.py'
channels = 1024
model = dict(
    backbone=dict(out_indices=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=dict(in_channels=[channels] * 4, out_channels=channels),
    decode_head=dict(in_channels=[channels] * 4),
    auxiliary_head=dict(in_channels=channels),
)
