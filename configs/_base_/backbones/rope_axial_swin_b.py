backbone = dict(type='mmrope.RoPESwin', arch='base', rope='axial')
