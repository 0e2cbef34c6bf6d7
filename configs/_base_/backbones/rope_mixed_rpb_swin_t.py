# No weights with both RoPE-Mixed and a bias table are published: these are RoPE-Mixed's, and the tables start anew.
backbone = dict(
    type='mmrope.RoPESwin',
    arch='tiny',
    rope='mixed',
    rpb=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='hf-hub:naver-ai/swin_rope_mixed_tiny_patch4_window7_224',
        allow_missing=['relative_position_bias_table'],
    ),
)
