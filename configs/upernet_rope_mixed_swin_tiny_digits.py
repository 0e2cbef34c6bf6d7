_base_ = [
    './_base_/backbones/rope_mixed_swin_tiny.py',
    './_base_/models/upernet_digits.py',
    './_base_/datasets/digits_segmentation.py',
    './_base_/schedules/digits_segmentation.py',
    './_base_/segmentation_runtime.py',
]
# From scratch: larger weights than Swin's 0.02, which suit a narrow model.
model = dict(
    backbone=dict(
        **_base_.backbone,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    neck=None,
    decode_head=dict(in_channels=[48, 96, 192], in_index=[0, 1, 2]),
)
visualizer = dict(alpha=0.6)
