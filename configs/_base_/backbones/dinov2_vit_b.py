# DINOv2 with four registers, as EoMT's authors cut it into patches of 16 pixels: no RoPE, an embedding of the square
# that it was trained on. For their published models, which hold all weights; img_size is that of the file.
backbone = dict(
    type='mmrope.RoPEViT',
    arch='base',
    rope=None,
    ape=True,
    with_cls_token=True,
    num_registers=4,
    layer_scale_init_value=1e-5,
    pos_embed_resize='bicubic_antialias',
)
