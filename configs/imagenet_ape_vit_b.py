_base_ = [
    './_base_/backbones/ape_vit_b.py',
    './_base_/models/imagenet_vit.py',
    './_base_/datasets/imagenet.py',
    './_base_/classification_runtime.py',
]
model = dict(backbone=_base_.backbone)
