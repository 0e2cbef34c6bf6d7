# LingBot-Vision: the architecture of DINOv3, Apache-2.0.
backbone = dict(
    type='mmrope.DINOv3ViT',
    arch='large',
    init_cfg=dict(type='Pretrained', checkpoint='timm:vit_large_patch16_lingbot.robbyant'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
