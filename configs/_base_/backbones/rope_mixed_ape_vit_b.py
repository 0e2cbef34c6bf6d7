backbone = dict(type='mmrope.RoPEViT', arch='base', rope='mixed', ape=True)
