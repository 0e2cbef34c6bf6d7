_base_ = ['./_base_/backbones/rope_mixed_swin_s.py', './_base_/recipes/mask2former_swin.py']
model = dict(backbone=_base_.backbone)
