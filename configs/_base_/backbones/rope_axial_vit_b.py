backbone = dict(
    type='mmrope.RoPEViT',
    arch='base',
    rope='axial',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/rope_axial_deit_base_patch16_LS'),
)
