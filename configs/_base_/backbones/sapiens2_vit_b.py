# Sapiens2, trained on images of people. Sapiens2 licence.
backbone = dict(
    type='mmrope.Sapiens2ViT',
    arch='0.1b',
    init_cfg=dict(type='Pretrained', checkpoint='timm:vit_base_patch16_sapiens2.fb'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
