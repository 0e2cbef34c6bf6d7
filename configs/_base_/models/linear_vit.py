# A linear layer on the normalised tokens of a frozen ViT, trained to segment. Of the authors of DINOv3 and Perception
# Encoder only the numbers are known here: what is not said in their papers is this project's choice.
# An experiment merges one of ../backbones into model.backbone.
channels = 768
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
        test_cfg=dict(size_divisor=16),  # whole patches, so that the maps fit the image to the pixel
    ),
    backbone=dict(frozen_stages=12),
    decode_head=dict(
        type='FCNHead',
        in_channels=channels,
        channels=channels,
        in_index=0,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=150,
        norm_cfg=None,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
