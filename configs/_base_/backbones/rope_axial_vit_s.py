backbone = dict(type='mmrope.RoPEViT', arch='small', rope='axial')
