# EVA-02, before it saw labels: patch 14, and so maps of stride 14. MIT.
backbone = dict(
    type='mmrope.EVA02ViT',
    arch='base',
    init_cfg=dict(type='Pretrained', checkpoint='timm:eva02_base_patch14_224.mim_in22k'),
)
pixels = dict(mean=[122.7709383, 116.7460125, 104.09373615], std=[68.5005327, 66.6321579, 70.32316305])
