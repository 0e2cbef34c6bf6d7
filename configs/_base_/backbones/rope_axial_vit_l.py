backbone = dict(type='mmrope.RoPEViT', arch='large', rope='axial')
