# Mask2Former on a hierarchical backbone: 160,000 iterations of ADE20k.
_base_ = [
    '../models/mask2former_swin.py',
    '../datasets/ade20k_shortest_edge.py',
    '../schedules/mask2former_160k.py',
    '../segmentation_runtime.py',
]
