_base_ = [
    './_base_/models/digit_classifier.py',
    './_base_/datasets/single_digits.py',
    './_base_/schedules/single_digits.py',
]
# From scratch: patches of 3 pixels, weights larger than Swin's 0.02, which suit a narrow model, no drop path. The
# window is the grid of the last stage, as in a Swin at 224 pixels.
model = dict(
    backbone=dict(
        type='mmrope.RoPESwin',
        arch=dict(embed_dims=24, depths=(2, 2, 2), num_heads=(1, 2, 4)),
        rope='mixed',
        patch_size=3,
        window_size=4,
        out_indices=(2,),
        drop_path_rate=0.0,
        out_type='avg_featmap',
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=1),
    ),
    head=dict(in_channels=96),
)
