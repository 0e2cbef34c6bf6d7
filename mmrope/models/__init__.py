"""What configs name: backbones and necks."""

from .simple_feature_pyramid import SimpleFeaturePyramid
from .vit import RoPEViT

__all__ = ['RoPEViT', 'SimpleFeaturePyramid']
