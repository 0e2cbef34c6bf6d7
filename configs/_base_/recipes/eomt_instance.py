# EoMT on weights of DINOv3's kind: 24 epochs of COCO's instances.
_base_ = [
    '../models/eomt_instance.py',
    '../datasets/coco_instance_eomt.py',
    '../schedules/eomt_coco_24e.py',
    '../detection_runtime.py',
]
custom_hooks = [*_base_.custom_hooks, dict(type='mmrope.MaskAnnealingHook')]
