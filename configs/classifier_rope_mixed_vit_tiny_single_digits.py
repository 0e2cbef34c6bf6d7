_base_ = [
    './_base_/models/digit_classifier.py',
    './_base_/datasets/single_digits.py',
    './_base_/schedules/single_digits.py',
]
# From scratch: no LayerScale, initial weights larger than DeiT-III's 0.02, since the model is narrow, and the mean of
# the patches in place of a cls token.
model = dict(
    backbone=dict(
        type='mmrope.RoPEViT',
        arch=dict(embed_dims=64, depth=4, num_heads=2),
        rope='mixed',
        img_size=48,
        patch_size=6,
        layer_scale_init_value=None,
        final_norm=True,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=64),
)
