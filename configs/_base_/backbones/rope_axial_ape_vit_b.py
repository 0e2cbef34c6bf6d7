backbone = dict(type='mmrope.RoPEViT', arch='base', rope='axial', ape=True)
