backbone = dict(
    type='mmrope.RoPEViT',
    arch='large',
    rope='axial',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_axial_deit_large_patch16_LS'),
)
