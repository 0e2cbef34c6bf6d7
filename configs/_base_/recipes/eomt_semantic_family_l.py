# The same on ViT-L, with four open blocks.
_base_ = './eomt_semantic_family.py'
model = dict(backbone=dict(open_blocks=4), decode_head=dict(embed_dims=1024, num_blocks=4))
