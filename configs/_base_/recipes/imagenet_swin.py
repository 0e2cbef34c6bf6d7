# The classifiers that the ImageNet-1k weights come from, for tests only.
_base_ = [
    '../models/imagenet_swin.py',
    '../datasets/imagenet_swin.py',
    '../classification_runtime.py',
]
