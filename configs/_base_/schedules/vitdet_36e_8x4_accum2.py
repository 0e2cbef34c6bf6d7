# 36 epochs, the length of MMDetection's 3x: 132,750 x 32 images = 36 x 118,000. The rate falls at the same shares as in
# vitdet_100e_8x4_accum2.py. ViTDet has no schedule this short; it is this project's choice.
_base_ = './vitdet_100e_8x4_accum2.py'
max_iters = 132750

train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[118000, 127833], gamma=0.1),
]
