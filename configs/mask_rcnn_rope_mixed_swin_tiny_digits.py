_base_ = [
    './_base_/backbones/rope_mixed_swin_tiny.py',
    './_base_/models/mask_rcnn_digits.py',
    './_base_/datasets/digits_instance.py',
    './_base_/schedules/digits.py',
    './_base_/detection_runtime.py',
]
# From scratch: larger weights than Swin's 0.02, which suit a narrow model.
model = dict(
    backbone=dict(
        **_base_.backbone,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    neck=dict(in_channels=[48, 96, 192], norm_cfg=_base_.norm_cfg),
)
visualizer = dict(line_width=1, alpha=0.6)
