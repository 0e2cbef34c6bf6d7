# A linear layer on a frozen ViT: 40,000 iterations of ADE20k.
_base_ = [
    '../models/linear_vit.py',
    '../datasets/ade20k.py',
    '../schedules/linear_40k.py',
    '../segmentation_runtime.py',
]
