_base_ = [
    './_base_/models/upernet_digits.py',
    './_base_/datasets/digits_segmentation.py',
    './_base_/schedules/digits_segmentation.py',
    './_base_/segmentation_runtime.py',
]
# From scratch: no LayerScale, and a smaller backbone than the detector's, since the number of scenes it sees in the
# time counts most. Two convolutions learn shapes sooner than more blocks would, and transposed ones give finer outlines
# than resizing.
act_cfg = dict(type='ReLU')
norm_cfg = _base_.norm_cfg
model = dict(
    backbone=dict(
        type='mmrope.RoPEViT',
        arch=dict(embed_dims=96, depth=2, num_heads=3),
        rope='mixed',
        patch_size=4,
        out_indices=(-1,),
        layer_scale_init_value=None,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform', gain=0.5),
    ),
    neck=[
        dict(type='MultiLevelNeck', in_channels=[96], out_channels=96, scales=[1], norm_cfg=norm_cfg, act_cfg=act_cfg),
        dict(type='MultiLevelNeck', in_channels=[96], out_channels=96, scales=[1], norm_cfg=norm_cfg, act_cfg=act_cfg),
        dict(
            type='mmrope.SimpleFeaturePyramid',
            in_channels=96,
            out_channels=_base_.channels,
            scales=(2, 1),
            num_outs=2,
            norm_cfg=norm_cfg,
        ),
    ],
    decode_head=dict(in_channels=[_base_.channels] * 2, in_index=[0, 1]),
)
visualizer = dict(alpha=0.6)
