# ImageNet-1k, 1000 classes, for tests only, as RoPE-ViT's authors test their ViTs (deit/ of their repository,
# --eval-crop-ratio 1.0): the shorter side at the size, then a centre crop. For Swins see imagenet_swin.py.
# To test at 384 pixels:
#   --cfg-options test_dataloader.dataset.pipeline.1.scale=384 test_dataloader.dataset.pipeline.2.crop_size=384
size = 224
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
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
