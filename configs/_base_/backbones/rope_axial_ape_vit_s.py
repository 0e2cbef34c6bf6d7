backbone = dict(
    type='mmrope.RoPEViT',
    arch='small',
    rope='axial',
    ape=True,
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_axial_ape_deit_small_patch16_LS'),
)
