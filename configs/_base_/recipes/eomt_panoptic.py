# EoMT on weights of DINOv3's kind: 24 epochs of COCO's panoptic segments.
_base_ = [
    '../models/eomt_panoptic.py',
    '../datasets/coco_panoptic_eomt.py',
    '../schedules/eomt_coco_24e.py',
    '../detection_runtime.py',
]
custom_hooks = [*_base_.custom_hooks, dict(type='mmrope.MaskAnnealingHook')]
