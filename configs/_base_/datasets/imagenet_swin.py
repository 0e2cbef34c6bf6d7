# ImageNet-1k as RoPE-ViT's authors test their Swins (SwinTransformer/data/build.py of their repository): the shorter
# side at 256 / 224 of the size, rounded down, then a centre crop. To test at 384 pixels, with windows of size / 32:
#   --cfg-options test_dataloader.dataset.pipeline.1.scale=438 test_dataloader.dataset.pipeline.2.crop_size=384
#   model.backbone.window_size=12
_base_ = './imagenet.py'
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=int(256 / 224 * _base_.size)),
    *_base_.test_pipeline[2:],
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
