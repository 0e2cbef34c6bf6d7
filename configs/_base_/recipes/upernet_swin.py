# UperNet on a hierarchical backbone: 160,000 iterations of ADE20k.
_base_ = [
    '../models/upernet_swin.py',
    '../datasets/ade20k.py',
    '../schedules/upernet_160k.py',
    '../segmentation_runtime.py',
]
