backbone = dict(
    type='mmrope.RoPEViT',
    arch='small',
    rope='mixed',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_mixed_deit_small_patch16_LS'),
)
