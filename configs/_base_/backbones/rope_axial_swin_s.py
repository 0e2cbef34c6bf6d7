backbone = dict(type='mmrope.RoPESwin', arch='small', rope='axial')
