backbone = dict(
    type='mmrope.RoPEViT',
    arch='small',
    rope='axial',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_axial_deit_small_patch16_LS'),
)
