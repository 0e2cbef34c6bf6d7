# UperNet on a plain backbone: 160,000 iterations of ADE20k.
_base_ = [
    '../models/upernet_vit.py',
    '../datasets/ade20k.py',
    '../schedules/upernet_160k.py',
    '../segmentation_runtime.py',
]
