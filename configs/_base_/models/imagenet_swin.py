# The classifier that the ImageNet-1k weights come from. They were trained at 224 pixels with windows of 7 tokens; the
# authors test with windows of size / 32, which is 12 at 384 pixels: set model.backbone.window_size with the size.
# Experiments merge one of ../backbones into model.backbone.
_base_ = './imagenet_vit.py'
model = dict(backbone=dict(_delete_=True, out_indices=(3,), out_type='avg_featmap'))
