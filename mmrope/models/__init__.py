"""Backbones and necks, as configs name them."""

from .simple_feature_pyramid import SimpleFeaturePyramid
from .swin import RoPESwin
from .vit import RoPEViT

__all__ = ['RoPESwin', 'RoPEViT', 'SimpleFeaturePyramid']
