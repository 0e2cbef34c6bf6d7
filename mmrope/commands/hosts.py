"""The host libraries: MMDetection, MMSegmentation and MMPreTrain."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

HOSTS = ('mmdet', 'mmseg', 'mmpretrain')


def scope_of(cfg: Config) -> str | None:
    """Return the name of the library that a config is for, or ``None``.

    This is its ``default_scope`` or, in a pure-Python config without one, the library of the class ``model.type``.
    """
    kind = (cfg.get('model') or {}).get('type')
    packages = [base.__module__.partition('.')[0] for base in getattr(kind, '__mro__', ())]
    return cfg.get('default_scope') or next((package for package in packages if package in HOSTS), None)


def type_name(part: Mapping[str, Any], default: str = '') -> str:
    """Return the class that a part of a config names, without its scope; pure-Python configs hold the class itself."""
    kind = part.get('type', default)
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def leave_out_multimodal_models() -> None:
    """Import MMPreTrain without its multimodal models where transformers 5 is installed.

    MMDetection imports MMPreTrain, which imports these models. They need names that transformers 5 has removed, so
    ``import mmdet.models`` fails with ``TypeError: NoneType takes no arguments``. Without transformers, MMPreTrain
    leaves them out by itself. This function can go once MMPreTrain has an upper bound for transformers.
    """
    try:
        too_new = int(version('transformers').partition('.')[0]) >= 5
    except (PackageNotFoundError, ValueError):
        return
    if too_new and find_spec('mmpretrain') is not None:
        dependency: Any = import_module('mmpretrain.utils.dependency')
        dependency.WITH_MULTIMODAL = False
