# DINO on ViT-L as detrex has it, with a warm-up; but the rate falls in epoch 11 as that of B does, and detrex's does
# not.
_base_ = './dino_vit.py'
model = dict(
    backbone=dict(global_attn_indexes=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=[dict(_base_.model.neck[0], in_channels=1024), _base_.model.neck[1]],
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    *_base_.param_scheduler,
]
