"""Pretrained weights of others, and mmrope's own, into mmrope's backbones and back."""

from .building import build_backbone
from .layouts import Converted, to_mmrope, to_timm
from .loading import PretrainedBackbone, load_converted, load_pretrained
from .report import LoadReport, WeightsError

__all__ = [
    'Converted',
    'LoadReport',
    'PretrainedBackbone',
    'WeightsError',
    'build_backbone',
    'load_converted',
    'load_pretrained',
    'to_mmrope',
    'to_timm',
]
