_base_ = [
    './_base_/backbones/rpb_swin_b.py',
    './_base_/models/imagenet_swin.py',
    './_base_/datasets/imagenet_swin.py',
    './_base_/classification_runtime.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=1024))
