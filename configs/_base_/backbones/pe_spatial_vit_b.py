# Perception Encoder, spatial. Apache-2.0.
backbone = dict(
    type='mmrope.PEViT',
    arch='spatial_base',
    init_cfg=dict(type='Pretrained', checkpoint='timm:vit_pe_spatial_base_patch16_512.fb'),
)
pixels = dict(mean=[127.5] * 3, std=[127.5] * 3)
