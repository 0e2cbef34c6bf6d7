# timm's copy: the authors' own, hf-hub:facebook/dinov3-vitl16-pretrain-lvd1689m, is gated. DINOv3 licence.
backbone = dict(
    type='mmrope.DINOv3ViT',
    arch='large',
    init_cfg=dict(type='Pretrained', checkpoint='timm:vit_large_patch16_dinov3.lvd1689m'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
