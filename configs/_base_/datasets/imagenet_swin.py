# ImageNet-1k as the authors test their Swins: the shorter side at 256 / 224 of the size, rounded down, and of that the
# centre (SwinTransformer/ of their repository, data/build.py).
# Another size, here 384, with windows of size / 32:
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
