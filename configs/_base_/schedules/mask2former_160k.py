# 160,000 iterations of ADE20k in batches of 16, as MMSegmentation trains Mask2Former. The paper gives no weight decay
# for RoPE; none for norms, biases, queries and frequencies is this project's choice.
_base_ = './upernet_160k.py'
interval = 5000
train_cfg = dict(val_interval=interval)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mmrope.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'query_embed': dict(decay_mult=0.0),
            'query_feat': dict(decay_mult=0.0),
            'level_embed': dict(decay_mult=0.0),
        }
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=_base_.max_iters)]
default_hooks = dict(checkpoint=dict(interval=interval, save_best='mIoU'))
