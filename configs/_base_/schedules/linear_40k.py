# 40,000 iterations of ADE20k in batches of 16 for a linear layer alone; this project's choice.
_base_ = './upernet_160k.py'
max_iters = 40000

train_cfg = dict(max_iters=max_iters, val_interval=4000)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(_delete_=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=4000))
