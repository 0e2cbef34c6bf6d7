backbone = dict(type='mmrope.RoPESwin', arch=dict(embed_dims=48, depths=(2, 2, 2), num_heads=(3, 6, 12)), rope='mixed')
