# 24 epochs of COCO in batches of 16 (7,391 iterations each), as EoMT is trained on DINOv3 S and B: warm-ups of 2,000
# and 3,000 iterations, and the open blocks, three here, all at the full rate. The authors begin to lower the
# probability of the first open block's mask at once in panoptic trainings; here it falls as in their others.
_base_ = './eomt_39k.py'
max_iters = 177384
interval = 7391

train_cfg = dict(max_iters=max_iters, val_interval=interval)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(full_rate_blocks=3))
param_scheduler = [
    dict(type='mmrope.StagedPolyLR', warmup=(2000, 3000), power=0.9, by_epoch=False, begin=0, end=max_iters)
]
default_hooks = dict(
    checkpoint=dict(interval=interval),
    visualization=dict(_delete_=True, type='DetVisualizationHook'),
)
