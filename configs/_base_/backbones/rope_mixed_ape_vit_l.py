backbone = dict(
    type='mmrope.RoPEViT',
    arch='large',
    rope='mixed',
    ape=True,
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_mixed_ape_deit_large_patch16_LS'),
)
