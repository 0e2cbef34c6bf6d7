# vitdet_25e_8x4_accum2.py on one GPU: sixteen iterations make a step of 64 images, so all numbers of iterations are
# eight times as large. 737,500 x 4 images = 25 x 118,000. This is this project's choice.
_base_ = './vitdet_25e_8x4_accum2.py'
max_iters = 737500
interval = 80000

train_cfg = dict(max_iters=max_iters, val_interval=interval)
optim_wrapper = dict(accumulative_counts=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=4000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[655556, 710184], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=interval))
