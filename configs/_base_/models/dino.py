# MMDetection's DINO, its whole experiment (12 epochs of COCO in batches of 16), without weight decay for embeddings and
# frequencies. The paper does not say how it set it; that is this project's choice.
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
custom_hooks = [dict(type='mmrope.FiniteLossHook'), dict(type='mmrope.LogFreqsHook')]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
