_base_ = [
    './_base_/backbones/rope_mixed_ape_vit_s.py',
    './_base_/models/imagenet_vit.py',
    './_base_/datasets/imagenet.py',
    './_base_/classification_runtime.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=384))
