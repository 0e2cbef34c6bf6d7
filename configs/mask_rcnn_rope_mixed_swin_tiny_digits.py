_base_ = [
    './_base_/models/mask_rcnn_digits.py',
    './_base_/datasets/digits_instance.py',
    './_base_/schedules/digits.py',
    './_base_/detection_runtime.py',
]
# From scratch: initial weights larger than Swin's 0.02, since the model is narrow.
model = dict(
    backbone=dict(
        type='mmrope.RoPESwin',
        arch=dict(embed_dims=48, depths=(2, 2, 2), num_heads=(2, 4, 8)),
        rope='mixed',
        patch_size=4,
        window_size=8,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    neck=dict(in_channels=[48, 96, 192], norm_cfg=_base_.norm_cfg),
)
visualizer = dict(line_width=1, alpha=0.6)
