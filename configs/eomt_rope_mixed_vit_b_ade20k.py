_base_ = ['./_base_/backbones/rope_mixed_vit_b.py', './_base_/recipes/eomt_semantic.py']
model = dict(backbone=dict(**_base_.backbone, with_cls_token=True))
