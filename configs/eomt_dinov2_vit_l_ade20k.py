# The authors' model, to test it or to train on from it. The schedule is that of eomt_lingbot_vit_l_ade20k.
_base_ = ['./_base_/backbones/dinov2_vit_l.py', './_base_/recipes/eomt_semantic_family_l.py']
model = dict(backbone=dict(**_base_.backbone, img_size=512))
load_from = 'hf-hub:tue-mps/ade20k_semantic_eomt_large_512'
