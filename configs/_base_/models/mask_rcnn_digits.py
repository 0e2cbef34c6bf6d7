# Mask R-CNN for images of 128 x 128 pixels with objects of 20 to 60: anchors are half as large as for COCO, and
# channels, convolutions and proposals are few, since they take the time on a CPU. To train from scratch in minutes, the
# heads have BatchNorm, which learns several times faster there than LayerNorm. These numbers are this project's choice.
# Experiments merge a backbone of strides 4, 8 and 16, with its neck, into this.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
channels = 64
strides = [4, 8, 16]
norm_cfg = dict(type='BN')

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(_delete_=True, drop_path_rate=0.0),
    neck=dict(out_channels=channels, num_outs=3),
    rpn_head=dict(
        num_convs=1,
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=channels, featmap_strides=strides),
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
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=channels, featmap_strides=strides),
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
