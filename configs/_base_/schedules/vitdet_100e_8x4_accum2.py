# 100 epochs of COCO on 8 GPUs with 4 images each: two iterations make a step of 64 images. MMEngine counts iterations,
# so all numbers of vitdet_100e.py are doubled: 368,750 x 32 images = 100 x 118,000.
_base_ = './vitdet_100e.py'
max_iters = 368750
interval = 10000

train_cfg = dict(max_iters=max_iters, val_interval=interval)
optim_wrapper = dict(accumulative_counts=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[327778, 355092], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=interval))
