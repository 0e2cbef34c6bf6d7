# The classifier that the ImageNet-1k weights come from.
# Experiments merge one of ../backbones into model.backbone.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(with_cls_token=True, final_norm=True, out_type='cls_token'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=768),
)
