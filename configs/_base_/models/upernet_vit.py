# UperNet on a plain backbone as in MMSegmentation's ViT configs: the maps of four blocks, resized to strides 4 to 32.
# The paper does not name its neck; this one, and the norm of the last map, are this project's choice. DeiT-III's
# authors say that their segmentation follows XCiT (github.com/facebookresearch/deit, issue 170), which has the same
# optimiser and schedule, but transposed convolutions with SyncBN as neck (Feature2Pyramid here) and the auxiliary head
# on the third map.
# Models with an absolute embedding learn it on the 32 x 32 grid of the crop (img_size=512), as MMSegmentation's ViT
# does.
# Experiments merge one of ../backbones into model.backbone.
norm_cfg = dict(type='SyncBN', requires_grad=True)
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
    backbone=dict(with_cls_token=True, out_indices=(2, 5, 8, 11), final_norm=True, drop_path_rate=0.1),
    neck=dict(type='MultiLevelNeck', in_channels=[768] * 4, out_channels=768, scales=[4, 2, 1, 0.5]),
    decode_head=dict(
        type='UPerHead',
        in_channels=[768] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=768,
        in_index=3,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
