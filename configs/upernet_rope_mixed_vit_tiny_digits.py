_base_ = [
    './_base_/models/upernet_digits.py',
    './_base_/datasets/digits_segmentation.py',
    './_base_/schedules/digits_segmentation.py',
    './_base_/segmentation_runtime.py',
]
# From scratch: no LayerScale, and smaller than the detector's backbone, since what counts is how many scenes it sees.
model = dict(
    backbone=dict(
        type='mmrope.RoPEViT',
        arch=dict(embed_dims=96, depth=3, num_heads=4),
        rope='mixed',
        patch_size=4,
        out_indices=(0, 1, 2),
        layer_scale_init_value=None,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    neck=dict(
        in_channels=[96] * 3,
        out_channels=_base_.channels,
        scales=[2, 1, 0.5],
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='ReLU'),
    ),
    decode_head=dict(in_channels=[_base_.channels] * 3, in_index=[0, 1, 2]),
)
visualizer = dict(alpha=0.6)
