# The same on ViT-L: 12 epochs, four open blocks.
_base_ = [
    '../models/eomt_instance.py',
    '../datasets/coco_instance_eomt.py',
    '../schedules/eomt_coco_12e.py',
    '../detection_runtime.py',
]
model = dict(backbone=dict(open_blocks=4), panoptic_head=dict(embed_dims=1024, num_blocks=4))
custom_hooks = [*_base_.custom_hooks, dict(type='mmrope.MaskAnnealingHook')]
