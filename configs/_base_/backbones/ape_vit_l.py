backbone = dict(type='mmrope.RoPEViT', arch='large', rope=None, ape=True)
