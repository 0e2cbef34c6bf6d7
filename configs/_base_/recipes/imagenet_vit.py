# The classifiers that the ImageNet-1k weights come from, for tests only.
_base_ = [
    '../models/imagenet_vit.py',
    '../datasets/imagenet.py',
    '../classification_runtime.py',
]
