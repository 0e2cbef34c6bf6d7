backbone = dict(type='mmrope.RoPEViT', arch='base', rope=None, ape=True)
