# SAM 3: patch 14, windows of 24 tokens, global attention in the last block of each quarter. Gated; SAM licence.
backbone = dict(
    type='mmrope.SAM3ViT',
    arch='large',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:facebook/sam3'),
)
pixels = dict(mean=[127.5] * 3, std=[127.5] * 3)
