"""What configs name: backbones and necks."""

from .simple_feature_pyramid import SimpleFeaturePyramid
from .swin import RoPESwin
from .vit import RoPEViT

__all__ = ['RoPESwin', 'RoPEViT', 'SimpleFeaturePyramid']
