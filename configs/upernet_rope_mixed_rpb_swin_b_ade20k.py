_base_ = [
    './_base_/backbones/rope_mixed_rpb_swin_b.py',
    './_base_/models/upernet_swin.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/upernet_160k.py',
    './_base_/segmentation_runtime.py',
]
channels = [128, 256, 512, 1024]
model = dict(
    backbone=_base_.backbone,
    decode_head=dict(in_channels=channels),
    auxiliary_head=dict(in_channels=channels[2]),
)
