backbone = dict(
    type='mmrope.RoPESwin',
    arch='base',
    rope='mixed',
    init_cfg=dict(type='Pretrained', checkpoint='hf-hub:naver-ai/swin_rope_mixed_base_patch4_window7_224'),
)
