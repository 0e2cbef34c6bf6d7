backbone = dict(
    type='mmrope.RoPEViT',
    arch='base',
    rope='mixed',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_mixed_deit_base_patch16_LS'),
)
