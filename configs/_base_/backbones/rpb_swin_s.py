# Microsoft's weights: RoPE-ViT's authors publish none for their baseline with a relative position bias alone.
backbone = dict(
    type='mmrope.RoPESwin',
    arch='small',
    rope=None,
    rpb=True,
    init_cfg=dict(type='Pretrained', checkpoint='timm:swin_small_patch4_window7_224.ms_in1k'),
)
