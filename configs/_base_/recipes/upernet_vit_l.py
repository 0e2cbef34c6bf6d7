# UperNet on ViT-L: 160,000 iterations of ADE20k.
_base_ = [
    '../models/upernet_vit_l.py',
    '../datasets/ade20k.py',
    '../schedules/upernet_160k.py',
    '../segmentation_runtime.py',
]
