backbone = dict(
    type='mmrope.RoPESwin',
    arch='small',
    rope='axial',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/swin_rope_axial_small_patch4_window7_224'),
)
