"""Rotary position embedding backbones for detection and segmentation with OpenMMLab."""

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ops

if TYPE_CHECKING:
    from .commands.prediction import Predictor as Predictor
    from .engine import LayerDecayOptimWrapperConstructor as LayerDecayOptimWrapperConstructor
    from .models import DINOv3ViT as DINOv3ViT
    from .models import EVA02ViT as EVA02ViT
    from .models import PEViT as PEViT
    from .models import RoPESwin as RoPESwin
    from .models import RoPEViT as RoPEViT
    from .models import SAM3ViT as SAM3ViT
    from .models import Sapiens2ViT as Sapiens2ViT
    from .models import SBBViT as SBBViT
    from .models import SimpleFeaturePyramid as SimpleFeaturePyramid
    from .weights import build_backbone as build_backbone

__version__ = '0.1.0'

_HOMES = {
    'RoPEViT': 'mmrope.models',
    'RoPESwin': 'mmrope.models',
    'DINOv3ViT': 'mmrope.models',
    'EVA02ViT': 'mmrope.models',
    'PEViT': 'mmrope.models',
    'SAM3ViT': 'mmrope.models',
    'Sapiens2ViT': 'mmrope.models',
    'SBBViT': 'mmrope.models',
    'SimpleFeaturePyramid': 'mmrope.models',
    'LayerDecayOptimWrapperConstructor': 'mmrope.engine',
    'build_backbone': 'mmrope.weights',
    'Predictor': 'mmrope.commands.prediction',
}
__all__ = ['__version__', 'config_path', *_HOMES]

ops.install()


def config_path(name: str) -> str:
    """Return the absolute path of one of mmrope's configs, for ``_base_``, in the installed package or the checkout.

    Args:
        name: path below ``configs/``, such as ``'_base_/backbones/rope_mixed_vit_b.py'``, with or without ``.py``.

    Raises:
        FileNotFoundError: if there is no such config.
    """
    package = Path(__file__).parent
    root = next(folder for folder in (package / '.mim' / 'configs', package.parent / 'configs') if folder.is_dir())
    path = root / f'{name.removesuffix(".py")}.py'
    if not path.is_file():
        known = [str(other.relative_to(root)) for other in root.rglob('*.py')]
        near = ', '.join(get_close_matches(name, known))
        hint = f'; near it: {near}' if near else ''
        raise FileNotFoundError(f'name must be a config below {root}, but got {name!r}{hint}')
    return str(path)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import mmrope`` stays light."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
