"""The suite of `make bench`. Each row is measured in one run; ratios are to its first candidate."""

custom_imports = dict(imports=['peers'])  # of this folder

_vit = dict(type='mmrope.RoPEViT', arch='base')
_windowed = dict(_vit, window_size=14, global_attn_indexes=(2, 5, 8, 11))
_large = dict(_windowed, arch='large', global_attn_indexes=(5, 11, 17, 23))
_swin = dict(type='mmrope.RoPESwin', arch='tiny')

candidates = dict(
    rope_mixed_vit_b=_vit,
    vit_b_without_rope=dict(_vit, rope=None),
    paper_rope_mixed_vit_b=dict(type='mmrope.PaperRoPEViT'),
    timm_rope_mixed_vit_b=dict(type='mmrope.TimmViT', name='vit_base_patch16_rope_mixed_224'),
    timm_vit_b=dict(type='mmrope.TimmViT', name='vit_base_patch16_224', init_values=1e-4),
    rope_mixed_vit_b_windowed=_windowed,
    vit_b_windowed_without_rope=dict(_windowed, rope=None),
    # MMPreTrain's version of ViTDet's windows with relative position, whose tables are sized at build time.
    rel_pos_vit_b_windowed_1024=dict(
        type='mmpretrain.ViTSAM', arch='base', img_size=1024, window_size=14, use_rel_pos=True, use_abs_pos=False,
        out_channels=0,
    ),
    rel_pos_vit_b_windowed_800x1333=dict(
        type='mmpretrain.ViTSAM', arch='base', img_size=(800, 1344), window_size=14, use_rel_pos=True,
        use_abs_pos=False, out_channels=0,
    ),
    rope_mixed_vit_l_windowed=_large,
    rope_mixed_vit_l_windowed_with_cp=dict(_large, with_cp=True),
    rope_mixed_swin_t=_swin,
    rope_axial_swin_t=dict(_swin, rope='axial'),
    rope_mixed_rpb_swin_t=dict(_swin, rpb=True),
    swin_t_without_rope=dict(_swin, rope=None),
    mmdet_swin_t=dict(type='mmdet.SwinTransformer'),
    mmseg_swin_t=dict(type='mmseg.SwinTransformer'),
)  # fmt: skip

_both = ['inference', 'training']
_global = ['rope_mixed_vit_b', 'vit_b_without_rope', 'paper_rope_mixed_vit_b', 'timm_rope_mixed_vit_b', 'timm_vit_b']
_swins = ['rope_mixed_swin_t', 'rope_axial_swin_t', 'rope_mixed_rpb_swin_t', 'swin_t_without_rope', 'mmdet_swin_t',
          'mmseg_swin_t']  # fmt: skip
rows = dict(
    vit_global=dict(candidates=_global, sizes=['1024x1024'], modes=['inference'], rounds=3),
    vit_rotation=dict(candidates=_global[:2], sizes=['512x512', '1024x1024'], modes=_both),
    vit_windowed=dict(
        candidates=['rope_mixed_vit_b_windowed', 'vit_b_windowed_without_rope', 'rel_pos_vit_b_windowed_1024'],
        sizes=['1024x1024'],
        modes=_both,
    ),
    vit_windowed_wide=dict(
        candidates=['rope_mixed_vit_b_windowed', 'vit_b_windowed_without_rope', 'rel_pos_vit_b_windowed_800x1333'],
        sizes=['800x1333'],
        modes=['inference'],
    ),
    swin=dict(candidates=_swins, sizes=['800x1333'], modes=_both),
    # A row may set its batch.
    vit_windowed_batch_4=dict(
        candidates=['rope_mixed_vit_b_windowed', 'vit_b_windowed_without_rope'],
        sizes=['512x512'],
        modes=_both,
        batch=4,
    ),
    swin_batch_4=dict(
        candidates=['rope_mixed_swin_t', 'swin_t_without_rope', 'mmdet_swin_t'], sizes=['512x683'], modes=_both, batch=4
    ),
    # Sizes that are no multiple of patch and window, next to even ones: compare the time per token.
    uneven_sizes=dict(
        candidates=['rope_mixed_vit_b_windowed', 'rope_mixed_swin_t'],
        sizes=['800x1344', '801x1333', '640x960', '640x957'],
        modes=['inference'],
    ),
    growth=dict(
        candidates=['rope_mixed_vit_b_windowed'],
        sizes=['512x512', '724x724', '1024x1024', '1448x1448', '2048x2048'],
        modes=['inference'],
    ),
    checkpointing=dict(
        candidates=['rope_mixed_vit_l_windowed', 'rope_mixed_vit_l_windowed_with_cp'],
        sizes=['1024x1024'],
        modes=['training'],
        rounds=1,
    ),
)
