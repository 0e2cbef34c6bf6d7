# Handwritten digits in synthetic scenes, for segmentation in ADE20k's layout: tools/make_digits.py.
dataset_type = 'BaseSegDataset'
data_root = 'data/digits/'
metainfo = dict(
    classes=('background', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'),
    # ten colours that colour-blind readers tell apart: M. Petroff, arXiv 2107.02270
    palette=[
        [0, 0, 0],
        [63, 144, 218],
        [255, 169, 14],
        [189, 31, 1],
        [148, 164, 162],
        [131, 45, 182],
        [169, 107, 89],
        [231, 99, 0],
        [185, 172, 112],
        [113, 117, 129],
        [146, 218, 221],
    ],
)
# Half the size of the scenes: digits are still told apart, with a quarter of the pixels. Scores are those of scenes at
# full size: in validation, labels are loaded after the image is resized and keep their size. In training both are
# resized by Pillow: OpenCV's nearest pixel is half a pixel too far up and left on average, too much for thin strokes.
image_size = (64, 64)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.85, 1.35), keep_ratio=True, backend='pillow'),
    dict(type='RandomCrop', crop_size=image_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True, backend='pillow'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.png',
        reduce_zero_label=True,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.png',
        reduce_zero_label=True,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
