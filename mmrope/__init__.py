"""Rotary position embedding backbones for detection and segmentation with OpenMMLab."""

from importlib import import_module

__version__ = '0.1.0'

_HOMES = {
    'RoPEViT': 'mmrope.models',
    'RoPESwin': 'mmrope.models',
    'SimpleFeaturePyramid': 'mmrope.models',
    'LayerDecayOptimWrapperConstructor': 'mmrope.engine',
}
__all__ = ['__version__', *_HOMES]


def __getattr__(name: str) -> object:
    """Import a public class when it is asked for, so that ``import mmrope`` stays light."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
