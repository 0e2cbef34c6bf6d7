"""EoMT's heads, and corrected versions of classes of the hosts.

These modules import MMDetection or MMSegmentation, and no other room of mmrope imports this one. Configs name the
classes by their full path, ``type='mmrope.heads.EoMTDecodeHead'``; a class imports its host when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .eomt_decode_head import EoMTDecodeHead as EoMTDecodeHead
    from .eomt_head import EoMTHead as EoMTHead
    from .segmentation import Mask2FormerHead as Mask2FormerHead
    from .segmentation import SegTTAModel as SegTTAModel

_HOMES = {
    'EoMTDecodeHead': 'mmrope.heads.eomt_decode_head',
    'EoMTHead': 'mmrope.heads.eomt_head',
    'Mask2FormerHead': 'mmrope.heads.segmentation',
    'SegTTAModel': 'mmrope.heads.segmentation',
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import a class on first use, so that one host's needs no other host."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
