_base_ = [
    './_base_/models/digit_classifier.py',
    './_base_/datasets/single_digits.py',
    './_base_/schedules/single_digits.py',
]
# From scratch: patches of 3 pixels, two stages, initial weights larger than Swin's 0.02, since the model is narrow, no
# drop path, and half the ViT's learning rate, since training with the bias alone was unstable at the full one. The
# window is the grid of the last stage, as in a Swin at 224 pixels.
model = dict(
    backbone=dict(
        type='mmrope.RoPESwin',
        arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4)),
        rope='mixed',
        patch_size=3,
        window_size=8,
        out_indices=(1,),
        drop_path_rate=0.0,
        out_type='avg_featmap',
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=1),
    ),
    head=dict(in_channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
