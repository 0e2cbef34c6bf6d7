"""MMCV's operators from torchvision and PyTorch, for an MMCV without compiled ones.

MMCV keeps its compiled operators in one extension module, ``mmcv._ext``. ``import mmrope`` appends a finder to
``sys.meta_path`` that resolves this name to ``mmrope/ops/extension.py``. Python asks it last, so it never shadows a
compiled extension, not even one that fails to load. Only this file is imported until MMCV asks for the extension.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

NAME = 'mmcv._ext'
# Host modules that remember from their import on that MMCV has no operators.
NOTING = ('mmdet.structures', 'mmseg.models', 'mmcv.cnn.bricks.transformer')
SOURCE = str(Path(__file__).with_name('extension.py'))


class OperatorsFinder:
    """Finder of ``mmcv._ext`` for an MMCV without compiled operators."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of ``extension.py`` for ``mmcv._ext``; ``None`` for any other module."""
        return spec_from_file_location(NAME, SOURCE) if name == NAME else None


def install() -> None:
    """Make MMCV use torchvision's and PyTorch's operators if it has no compiled ones.

    Warn if a host was imported earlier and found none.
    """
    if any(finder is OperatorsFinder for finder in sys.meta_path):
        return
    if any(name in sys.modules for name in NOTING) and find_spec(NAME) is None:
        warnings.warn(
            'MMDetection, MMSegmentation or MMPreTrain was imported before mmrope and found no MMCV operators; '
            'import mmrope first, or run `mmrope ops` once to make them available in every Python process',
            stacklevel=3,
        )
    sys.meta_path.append(OperatorsFinder)


def compiled() -> bool:
    """Return whether MMCV has compiled operators.

    Raises:
        ModuleNotFoundError: if MMCV is not installed.
    """
    spec = find_spec(NAME)
    return spec is not None and spec.origin != SOURCE


def describe() -> str:
    """Say in one line which operators MMCV calls."""
    if compiled():
        return "Operators: MMCV's compiled ones."
    return "Operators: torchvision's and PyTorch's, since MMCV has none compiled."
