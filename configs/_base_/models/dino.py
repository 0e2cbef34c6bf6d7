# MMDetection's DINO, its whole experiment (12 epochs of COCO in batches of 16), with a warm-up and without weight decay
# for embeddings and frequencies. The paper does not say how it set these; both are this project's choice.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'backbone.pos_embed': dict(lr_mult=0.1, decay_mult=0.0),
            'rope.freqs': dict(lr_mult=0.1, decay_mult=0.0),
        }
    )
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1),
]
