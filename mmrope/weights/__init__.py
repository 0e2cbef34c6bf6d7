"""Pretrained weights of other projects and of mmrope: converting, loading into backbones, reporting."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import build_backbone as build_backbone
    from .layouts import Converted as Converted
    from .layouts import to_mmrope as to_mmrope
    from .layouts import to_timm as to_timm
    from .loading import PretrainedBackbone as PretrainedBackbone
    from .loading import load_converted as load_converted
    from .loading import load_pretrained as load_pretrained
    from .report import LoadReport as LoadReport
    from .report import WeightsError as WeightsError

_HOMES = {
    'Converted': 'layouts',
    'LoadReport': 'report',
    'PretrainedBackbone': 'loading',
    'WeightsError': 'report',
    'build_backbone': 'building',
    'load_converted': 'loading',
    'load_pretrained': 'loading',
    'to_mmrope': 'layouts',
    'to_timm': 'layouts',
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, since the table of published weights needs no torch."""
    if name in _HOMES:
        return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
