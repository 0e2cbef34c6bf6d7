_base_ = [
    './_base_/backbones/rope_mixed_swin_b.py',
    './_base_/models/mask2former_swin.py',
    './_base_/datasets/ade20k_shortest_edge.py',
    './_base_/schedules/mask2former_160k.py',
    './_base_/segmentation_runtime.py',
]
model = dict(backbone=_base_.backbone, decode_head=dict(in_channels=[128, 256, 512, 1024]))
