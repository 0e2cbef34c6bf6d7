# UperNet for images of 64 x 64 pixels, made slim where it takes time on a CPU, to train from scratch in minutes. It has
# no dropout; the background, four fifths of all pixels, counts less than a digit; and the last layer starts at ten
# times the usual 0.01, at which the gradient that tells digits apart hardly reaches the layers before it. These numbers
# are this project's choice. Experiments merge a backbone into this, and set the neck or leave it out.
_base_ = './upernet_vit.py'
channels = 48
norm_cfg = dict(_delete_=True, type='BN')

model = dict(
    data_preprocessor=dict(size=(64, 64), test_cfg=dict(size_divisor=4)),
    backbone=dict(_delete_=True, drop_path_rate=0.0),
    decode_head=dict(
        channels=channels,
        pool_scales=(1,),
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Normal', std=0.1, override=dict(name='conv_seg')),
        loss_decode=dict(class_weight=[0.5] + [1.0] * 10),
    ),
    auxiliary_head=None,
)
