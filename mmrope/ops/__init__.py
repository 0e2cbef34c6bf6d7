"""MMCV's operators from torchvision and PyTorch, where MMCV has none compiled.

MMCV keeps its compiled operators in one extension module, ``mmcv._ext``. ``import mmrope`` appends a finder to
``sys.meta_path`` that answers that name with ``mmrope/ops/extension.py``. Python asks it last, so a compiled extension
is never shadowed, and neither is one that fails to load. Nothing but this file is imported until MMCV asks.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

NAME = 'mmcv._ext'
# Those of the hosts' modules that note at their import that MMCV has no operators.
NOTING = ('mmdet.structures', 'mmseg.models', 'mmcv.cnn.bricks.transformer')
SOURCE = str(Path(__file__).with_name('extension.py'))


class OperatorsFinder:
    """Finder of ``mmcv._ext`` for an MMCV without compiled operators."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of ``extension.py`` for ``mmcv._ext``, and None for any other module."""
        return spec_from_file_location(NAME, SOURCE) if name == NAME else None


def install() -> None:
    """Let MMCV find torchvision's and PyTorch's operators if it has none of its own.

    Warns if a host was imported before and has noted that there are none.
    """
    if any(finder is OperatorsFinder for finder in sys.meta_path):
        return
    if any(name in sys.modules for name in NOTING) and find_spec(NAME) is None:
        warnings.warn(
            'MMDetection, MMSegmentation or MMPreTrain was imported before mmrope and found no operators of MMCV; '
            'import mmrope first, or run `mmrope ops` once, which makes them available from the start of every Python',
            stacklevel=3,
        )
    sys.meta_path.append(OperatorsFinder)


def compiled() -> bool:
    """Say whether MMCV has compiled operators.

    Raises:
        ModuleNotFoundError: if there is no MMCV.
    """
    spec = find_spec(NAME)
    return spec is not None and spec.origin != SOURCE


def describe() -> str:
    """Say in one line which operators MMCV calls."""
    if compiled():
        return "Operators: MMCV's compiled ones."
    return "Operators: torchvision's and PyTorch's, since MMCV has none compiled."
