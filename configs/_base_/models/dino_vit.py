# DINO on a plain backbone as in detrex (projects/dino/configs/dino-vitdet): ViTDet's windows and drop path, a pyramid
# of strides 8 to 64 from the last map at the backbone's learning rate, and a convolution with GroupNorm for each of its
# maps. The paper does not give these. The differences from detrex are the position embedding and the weights; norms
# decay, as in MMDetection's DINO, but embeddings and frequencies do not; images are padded to multiples of 32.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './dino.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),  # so that the maps of all strides fit the image to the pixel
    backbone=dict(window_size=14, global_attn_indexes=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=[
        dict(
            type='mmrope.SimpleFeaturePyramid',
            in_channels=768,
            out_channels=256,
            scales=(2, 1, 0.5),
            num_outs=4,
        ),
        dict(
            type='ChannelMapper',
            in_channels=[256] * 4,
            out_channels=256,
            kernel_size=1,
            act_cfg=None,
            norm_cfg=dict(type='GN', num_groups=32),
            num_outs=4,
        ),
    ],
)
