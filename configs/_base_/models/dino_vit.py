# DINO on a plain backbone: a pyramid of strides 8 to 64 from the last map, windowed blocks and drop path as ViTDet has
# them. The paper does not say how it set these; they are this project's choice.
# An experiment merges one of ../backbones into model.backbone.
_base_ = './dino.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),  # so that the maps of all strides fit the image to the pixel
    backbone=dict(_delete_=True, window_size=14, global_attn_indexes=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=dict(
        _delete_=True,
        type='mmrope.SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        scales=(2, 1, 0.5),
        num_outs=4,
    ),
)
