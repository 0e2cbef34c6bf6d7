_base_ = [
    './_base_/backbones/rope_mixed_vit_l.py',
    './_base_/models/upernet_vit.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/upernet_160k.py',
    './_base_/segmentation_runtime.py',
]
channels = 1024
# MMSegmentation has no UperNet on such a ViT-L: the drop path is that of its pretraining, this project's choice.
model = dict(
    backbone=dict(**_base_.backbone, out_indices=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=dict(in_channels=[channels] * 4, out_channels=channels),
    decode_head=dict(in_channels=[channels] * 4),
    auxiliary_head=dict(in_channels=channels),
)
