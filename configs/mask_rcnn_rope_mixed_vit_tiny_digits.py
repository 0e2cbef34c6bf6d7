_base_ = [
    './_base_/backbones/rope_mixed_vit_tiny.py',
    './_base_/models/mask_rcnn_digits.py',
    './_base_/datasets/digits_instance.py',
    './_base_/schedules/digits.py',
    './_base_/detection_runtime.py',
]
# From scratch: no LayerScale, and initial weights larger than DeiT-III's 0.02, since the model is narrow.
model = dict(
    backbone=dict(
        **_base_.backbone,
        patch_size=8,
        window_size=8,
        global_attn_indexes=(2, 5),
        layer_scale_init_value=None,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    neck=dict(
        _delete_=True,
        type='mmrope.SimpleFeaturePyramid',
        in_channels=128,
        out_channels=_base_.channels,
        scales=(2, 1, 0.5),
        num_outs=3,
        norm_cfg=_base_.norm_cfg,
    ),
)
visualizer = dict(line_width=1, alpha=0.6)
