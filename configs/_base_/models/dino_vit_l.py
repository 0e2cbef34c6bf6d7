# DINO on ViT-L as in detrex.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './dino_vit.py'
model = dict(
    backbone=dict(global_attn_indexes=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=[dict(_base_.model.neck[0], in_channels=1024), _base_.model.neck[1]],
)
