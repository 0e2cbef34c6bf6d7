"""Pretrained weights of others, and mmrope's own, into mmrope's backbones and back."""

from .layouts import Converted, to_mmrope, to_timm
from .loading import PretrainedBackbone, load_converted, load_pretrained
from .report import LoadReport, WeightsError

__all__ = [
    'Converted',
    'LoadReport',
    'PretrainedBackbone',
    'WeightsError',
    'load_converted',
    'load_pretrained',
    'to_mmrope',
    'to_timm',
]
