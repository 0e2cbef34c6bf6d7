# ADE20k as EoMT augments it: the longer side at 512 times 0.5 to 2.0 (MMSegmentation scales the shorter one), crops of
# 512 x 512, padded with black at the bottom and right. The authors change colours before they resize, and repeat
# the draw if a crop shows no label; neither is done here. Tests resize the shorter side to 512.
_base_ = './ade20k.py'
crop_size = _base_.crop_size
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=crop_size, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
