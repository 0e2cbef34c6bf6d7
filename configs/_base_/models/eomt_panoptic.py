# EoMT (arXiv 2503.19108) for panoptic segmentation: 200 queries join the tokens in the last blocks of the ViT (three
# of S and B, four of L). The detector and the fusion of masks are MMDetection's for MaskFormer and Mask2Former.
# Experiments merge one of ../backbones into model.backbone.
num_things_classes, num_stuff_classes = 80, 53
model = dict(
    type='MaskFormer',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,  # the pipelines pad
        pad_mask=True,
        mask_pad_value=0,
        pad_seg=True,
        seg_pad_value=255,
    ),
    backbone=dict(out_indices=(), final_norm=True, open_blocks=3),
    panoptic_head=dict(
        type='mmrope.heads.EoMTHead',
        embed_dims=768,
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        num_queries=200,
        num_blocks=3,
    ),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead',
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        loss_panoptic=None,
        init_cfg=None,
    ),
    train_cfg=dict(),
    test_cfg=dict(
        panoptic_on=True,
        semantic_on=False,
        instance_on=False,
        max_per_image=100,
        object_mask_thr=0.8,
        iou_thr=0.8,
        filter_low_score=True,
    ),
)
