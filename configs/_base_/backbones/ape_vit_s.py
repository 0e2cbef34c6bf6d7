backbone = dict(
    type='mmrope.RoPEViT',
    arch='small',
    rope=None,
    ape=True,
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/deit_small_patch16_LS'),
)
