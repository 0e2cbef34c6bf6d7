_base_ = './dinov2_vit_b.py'
backbone = dict(arch='large')
