# EoMT on weights of DINOv3's kind: 16 epochs of ADE20k.
_base_ = [
    '../models/eomt_semantic.py',
    '../datasets/ade20k_eomt.py',
    '../schedules/eomt_20k.py',
    '../segmentation_runtime.py',
]
custom_hooks = [*_base_.custom_hooks, dict(type='mmrope.MaskAnnealingHook')]
