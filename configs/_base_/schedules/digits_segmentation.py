# A segmenter finds out what tells the digits apart only after some 2,500 scenes: longer and at a higher rate.
_base_ = './digits.py'
max_iters = 2800

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
optim_wrapper = dict(optimizer=dict(lr=3e-3, betas=(0.9, 0.999), weight_decay=0.03, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, T_max=max_iters - 50, eta_min=0),
]
default_hooks = dict(
    checkpoint=dict(interval=max_iters // 10),
    visualization=dict(_delete_=True, type='SegVisualizationHook'),
)
