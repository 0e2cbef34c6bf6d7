backbone = dict(type='mmrope.RoPESwin', arch='tiny', rope='axial')
