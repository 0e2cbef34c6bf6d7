# UperNet on a hierarchical backbone, as in MMSegmentation's Swin configs.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './upernet_vit.py'
channels = [96, 192, 384, 768]
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    backbone=dict(_delete_=True, drop_path_rate=0.3),
    neck=None,
    decode_head=dict(in_channels=channels),
    auxiliary_head=dict(in_channels=channels[2], in_index=2),
)
