# Images of single handwritten digits, one folder per class: tools/make_digits.py --single.
# They are stored at 96 x 96 pixels, twice the 48 that the models train at. As in the paper, training sees crops of many
# scales and tests see whole images, so objects look larger in training than in a test at the same image size.
data_root = 'data/single_digits'
size = 48

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=size,
        crop_ratio_range=(0.25, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix=dict(img_path='training'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix=dict(img_path='validation'), pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
