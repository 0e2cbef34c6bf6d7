backbone = dict(type='mmrope.RoPEViT', arch='tiny', rope='mixed')
