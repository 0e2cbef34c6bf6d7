# MMDetection's DINO on a plain backbone: its whole experiment (12 epochs of COCO in batches of 16) with a pyramid of
# strides 8 to 64 from the last map, windowed blocks and drop path as ViTDet has them, and a warm-up.
# The paper does not say how it set these; they are this project's choice.
# An experiment merges one of ../backbones into model.backbone.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),  # so that the maps of all strides fit the image to the pixel
    backbone=dict(_delete_=True, window_size=14, global_attn_indexes=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=dict(
        _delete_=True,
        type='mmrope.SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        scales=(2, 1, 0.5),
        num_outs=4,
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'backbone.pos_embed': dict(lr_mult=0.1, decay_mult=0.0),
            'rope.freqs': dict(lr_mult=0.1, decay_mult=0.0),
        }
    )
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1),
]
