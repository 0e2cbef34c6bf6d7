backbone = dict(type='mmrope.RoPESwin', arch='tiny', rope='mixed', rpb=True)
