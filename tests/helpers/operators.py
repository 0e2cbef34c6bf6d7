"""MMCV as it is without compiled operators, whatever this environment has."""

import importlib.util
import os
from pathlib import Path

from mmrope.ops import compiled

HAS_COMPILED = compiled()


def without_compiled(folder: Path) -> dict[str, str]:
    """Return an environment for children in which MMCV has no compiled operators and mmrope is of this checkout.

    Args:
        folder: empty; MMCV comes there as links to its files.
    """
    mmcv = Path(importlib.util.find_spec('mmcv').origin).parent
    (folder / 'mmcv').mkdir()
    for path in mmcv.iterdir():
        if not path.name.startswith('_ext'):
            (folder / 'mmcv' / path.name).symlink_to(path)
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
