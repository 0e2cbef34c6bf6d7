backbone = dict(
    type='mmrope.RoPEViT',
    arch='large',
    rope='axial',
    ape=True,
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_axial_ape_deit_large_patch16_LS'),
)
