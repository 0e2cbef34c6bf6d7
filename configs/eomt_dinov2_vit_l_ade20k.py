# The authors' model, to test it or to train on from it.
_base_ = ['./_base_/backbones/dinov2_vit_l.py', './_base_/recipes/eomt_semantic.py']
model = dict(
    backbone=dict(**_base_.backbone, img_size=512, open_blocks=4),
    decode_head=dict(embed_dims=1024, num_blocks=4),
)
load_from = 'hf-hub:tue-mps/ade20k_semantic_eomt_large_512'
