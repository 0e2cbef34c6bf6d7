# The same on maps of stride 14, without the cls token.
_base_ = './dino_family.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=56),  # so that the maps of all strides fit the image to the pixel
    backbone=dict(with_cls_token=False),
)
