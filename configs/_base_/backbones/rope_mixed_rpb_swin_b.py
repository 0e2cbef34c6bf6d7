backbone = dict(type='mmrope.RoPESwin', arch='base', rope='mixed', rpb=True)
