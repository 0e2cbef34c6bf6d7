backbone = dict(
    type='mmrope.RoPEViT',
    arch='large',
    rope='mixed',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_mixed_deit_large_patch16_LS'),
)
