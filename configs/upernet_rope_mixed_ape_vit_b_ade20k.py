_base_ = [
    './_base_/backbones/rope_mixed_ape_vit_b.py',
    './_base_/models/upernet_vit.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/upernet_160k.py',
    './_base_/segmentation_runtime.py',
]
model = dict(backbone=dict(**_base_.backbone, img_size=512))
