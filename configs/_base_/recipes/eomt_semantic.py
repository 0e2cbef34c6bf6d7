# EoMT on weights that were trained with labels, with its authors' recipe for DINOv2: 31 epochs of ADE20k.
_base_ = [
    '../models/eomt_semantic.py',
    '../datasets/ade20k_eomt.py',
    '../schedules/eomt_39k.py',
    '../segmentation_runtime.py',
]
custom_hooks = [*_base_.custom_hooks, dict(type='mmrope.MaskAnnealingHook')]
