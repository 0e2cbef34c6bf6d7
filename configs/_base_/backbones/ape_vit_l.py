backbone = dict(
    type='mmrope.RoPEViT',
    arch='large',
    rope=None,
    ape=True,
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/deit_large_patch16_LS'),
)
