_base_ = [
    './_base_/backbones/rope_axial_ape_vit_l.py',
    './_base_/models/imagenet_vit.py',
    './_base_/datasets/imagenet.py',
    './_base_/classification_runtime.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=1024))
