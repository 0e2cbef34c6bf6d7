# EoMT on DINOv2, as its authors train it: half the rate of DINOv3's recipe, shorter warm-ups, and layer decay from the
# last block on.
_base_ = './eomt_panoptic.py'
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(full_rate_blocks=1))
param_scheduler = [
    dict(type='mmrope.StagedPolyLR', warmup=(500, 1000), power=0.9, by_epoch=False, begin=0, end=_base_.max_iters)
]
