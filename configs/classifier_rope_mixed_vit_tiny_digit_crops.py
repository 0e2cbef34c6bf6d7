_base_ = [
    './_base_/models/digit_classifier.py',
    './_base_/datasets/digit_crops.py',
    './_base_/schedules/digit_crops.py',
]
# From scratch: no LayerScale, and larger weights than DeiT-III's 0.02, which suit a narrow model.
model = dict(
    backbone=dict(
        type='mmrope.RoPEViT',
        arch=dict(embed_dims=96, depth=4, num_heads=4),
        rope='mixed',
        img_size=32,
        patch_size=4,
        with_cls_token=True,
        layer_scale_init_value=None,
        final_norm=True,
        out_type='cls_token',
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    head=dict(in_channels=96),
)
