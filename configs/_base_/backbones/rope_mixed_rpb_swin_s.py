backbone = dict(type='mmrope.RoPESwin', arch='small', rope='mixed', rpb=True)
