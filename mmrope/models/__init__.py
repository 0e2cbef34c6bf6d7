"""Backbones and necks, as configs name them."""

from .eomt import EoMT
from .families import DINOv3ViT, EVA02ViT, PEViT, SAM3ViT, Sapiens2ViT, SBBViT
from .open_tokens import OpenTokens
from .simple_feature_pyramid import SimpleFeaturePyramid
from .swin import RoPESwin
from .vit import RoPEViT

__all__ = [
    'DINOv3ViT',
    'EVA02ViT',
    'EoMT',
    'OpenTokens',
    'PEViT',
    'RoPESwin',
    'RoPEViT',
    'SAM3ViT',
    'SBBViT',
    'Sapiens2ViT',
    'SimpleFeaturePyramid',
]
