_base_ = ['./_base_/backbones/lingbot_vit_s.py', './_base_/recipes/eomt_instance.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone, panoptic_head=dict(embed_dims=384))
