# 12 epochs of COCO, as EoMT is trained on L, with its four open blocks at the full rate.
_base_ = './eomt_coco_24e.py'
max_iters = 88692

train_cfg = dict(max_iters=max_iters)
optim_wrapper = dict(paramwise_cfg=dict(full_rate_blocks=4))
param_scheduler = [
    dict(type='mmrope.StagedPolyLR', warmup=(2000, 3000), power=0.9, by_epoch=False, begin=0, end=max_iters)
]
