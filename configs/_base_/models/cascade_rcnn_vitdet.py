# Cascade R-CNN on a plain backbone: three box heads as in ViTDet's Cascade Mask R-CNN (detectron2,
# projects/ViTDet/configs/COCO/cascade_mask_rcnn_vitdet_b_100ep.py), each of four convolutions and a linear layer with
# LayerNorm, and L1 losses, on thresholds of 0.5, 0.6 and 0.7. ViTDet trains boxes together with masks; boxes alone, and
# MMDetection's weights of the stages (1, 0.5, 0.25), are this project's choice.
# Experiments merge one of ../backbones into model.backbone.
_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'
norm_cfg = dict(type='mmrope.LayerNorm2d', eps=1e-6)
l1 = dict(type='L1Loss', loss_weight=1.0)

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, window_size=14, global_attn_indexes=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=dict(
        _delete_=True,
        type='mmrope.SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        scales=(4, 2, 1, 0.5),
        num_outs=5,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, **l1)),
    roi_head=dict(
        bbox_head=[
            dict(head, type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg, loss_bbox=l1)
            for head in _base_.model.roi_head.bbox_head
        ],
    ),
    train_cfg=dict(rpn=dict(allowed_border=-1), rpn_proposal=dict(max_per_img=1000)),
)
