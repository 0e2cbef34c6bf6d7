backbone = dict(
    type='mmrope.RoPEViT',
    arch='base',
    rope=None,
    ape=True,
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/deit_base_patch16_LS'),
)
