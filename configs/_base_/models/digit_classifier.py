# A classifier of single digits at 48 x 48 pixels. Its last layer starts at ten times the usual 0.01, as in
# upernet_digits.py. Experiments merge a backbone into this.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=10,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    head=dict(type='LinearClsHead', num_classes=10, init_cfg=dict(type='Normal', layer='Linear', std=0.1)),
)
