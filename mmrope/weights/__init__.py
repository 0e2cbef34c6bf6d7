"""Pretrained weights of others, and mmrope's own, into mmrope's backbones and back."""

from importlib import import_module

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


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: the table of published weights needs no torch."""
    if name in _HOMES:
        return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
