# ImageNet-1k, 1000 classes, for tests alone: the shorter side at size / 0.9, and of that the centre.
# 0.9 and bicubic are what timm tests its copies of the ViTs with; for the Swins, which it does not have, they are this
# project's choice. With which ratio the published accuracies were measured was not found.
# Another size, here 384, with a window of size / 32 where the model is a Swin:
#   --cfg-options test_dataloader.dataset.pipeline.1.scale=426 test_dataloader.dataset.pipeline.2.crop_size=384
#   model.backbone.window_size=12
size = 224
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=int(size / 0.9), edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='val',
        data_prefix=dict(img_path='val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
