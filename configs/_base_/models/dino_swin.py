# DINO on the last three maps of a hierarchical backbone, a Swin-T or S. The drop path is this project's choice; the
# paper gives none.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './dino.py'
model = dict(
    backbone=dict(out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(
        type='ChannelMapper',
        in_channels=[192, 384, 768],
        out_channels=256,
        kernel_size=1,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=4,
    ),
)
