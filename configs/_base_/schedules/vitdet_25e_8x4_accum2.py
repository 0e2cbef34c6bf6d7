# A quarter of vitdet_100e_8x4_accum2.py, with the same warm-up: 92,188 x 32 images = 25 x 118,000. ViTDet has no
# schedule this short; it is this project's choice.
_base_ = './vitdet_100e_8x4_accum2.py'
max_iters = 92188

train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[81944, 88772], gamma=0.1),
]
