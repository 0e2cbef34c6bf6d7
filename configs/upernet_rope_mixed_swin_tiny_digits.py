_base_ = [
    './_base_/models/upernet_digits.py',
    './_base_/datasets/digits_segmentation.py',
    './_base_/schedules/digits_segmentation.py',
    './_base_/segmentation_runtime.py',
]
# From scratch: patches of 2 pixels, and initial weights larger than Swin's 0.02, since the model is narrow.
# Convolutions learn shapes sooner than more blocks would.
model = dict(
    backbone=dict(
        type='mmrope.RoPESwin',
        arch=dict(embed_dims=48, depths=(2, 2, 2), num_heads=(2, 4, 8)),
        rope='mixed',
        patch_size=2,
        window_size=8,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    neck=dict(
        in_channels=[48, 96, 192],
        out_channels=_base_.channels,
        scales=[1, 1, 1],
        norm_cfg=_base_.norm_cfg,
        act_cfg=dict(type='ReLU'),
    ),
    decode_head=dict(in_channels=[_base_.channels] * 3, in_index=[0, 1, 2]),
)
visualizer = dict(alpha=0.6)
