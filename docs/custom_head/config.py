_base_ = [
    __import__('mmrope').config_path('_base_/backbones/rope_mixed_vit_tiny.py'),
    __import__('mmrope').config_path('_base_/datasets/digits_segmentation.py'),
    __import__('mmrope').config_path('_base_/schedules/digits.py'),
    __import__('mmrope').config_path('_base_/segmentation_runtime.py'),
]
custom_imports = dict(imports=['my_head'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=_base_.image_size,
        seg_pad_val=255,
    ),
    backbone=dict(**_base_.backbone, patch_size=8, out_indices=(-1,), layer_scale_init_value=None),
    decode_head=dict(
        type='OneConvHead',
        in_channels=128,
        in_index=0,
        channels=64,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    ),
    test_cfg=dict(mode='whole'),
)
default_hooks = dict(visualization=dict(_delete_=True, type='SegVisualizationHook'))
