# timm's ViT with RoPE and a register, trained on ImageNet. MIT.
backbone = dict(
    type='mmrope.SBBViT',
    arch='base',
    init_cfg=dict(type='Pretrained', checkpoint='timm:vit_base_patch16_rope_reg1_gap_256.sbb_in1k'),
)
pixels = dict(mean=[127.5] * 3, std=[127.5] * 3)
