_base_ = [
    './_base_/backbones/rope_mixed_vit_tiny.py',
    './_base_/models/mask_rcnn_vitdet.py',
    './_base_/datasets/digits_instance.py',
    './_base_/schedules/digits.py',
    './_base_/detection_runtime.py',
]
# Images of 128 x 128 pixels, digits of 20 to 60: patches and anchors are half as large as for COCO, and what costs time
# on a CPU is slim: channels, convolutions, proposals.
# From scratch in minutes: BatchNorm in neck and heads and no LayerScale learn several times faster than what suits a
# pretrained model, and a narrow model wants larger weights than DeiT-III's 0.02.
channels = 64
norm_cfg = dict(_delete_=True, type='BN')
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(
        **_base_.backbone,
        patch_size=8,
        window_size=8,
        global_attn_indexes=(2, 5),
        drop_path_rate=0.0,
        layer_scale_init_value=None,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    neck=dict(in_channels=128, out_channels=channels, scales=(2, 1, 0.5), num_outs=3, norm_cfg=norm_cfg),
    rpn_head=dict(
        num_convs=1,
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=channels, featmap_strides=[4, 8, 16]),
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=256,
            num_classes=10,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=channels, featmap_strides=[4, 8, 16]),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=48,
            num_classes=10,
            norm_cfg=norm_cfg,
            loss_mask=dict(loss_weight=2.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(score_thr=0.02, max_per_img=30),
    ),
)
visualizer = dict(line_width=1, alpha=0.6)
