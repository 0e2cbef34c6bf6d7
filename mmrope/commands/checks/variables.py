"""Variables of a config that say something which the config does not do.

MMEngine copies variables when it reads a base config. A child that sets one changes none of the parts made from it.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ... import config_path
from ..hosts import scope_of
from .classes import heads_of

SIZES = ('image_size', 'img_size', 'img_scale', 'crop_size')
LENGTHS = ('max_epochs', 'max_iters')
PIPELINES = ('train_pipeline', 'val_pipeline', 'test_pipeline')
PARTS = ('model', 'train_cfg', 'tta_pipeline', *(f'{stage}_dataloader' for stage in ('train', 'val', 'test')))


def check_variables(cfg: Config) -> None:
    """Warn of each variable of a user whose value is in none of the parts that it names.

    Variables of mmrope's and the hosts' bases are no mistakes: a child that sets ``train_cfg.max_iters`` as it should
    leaves the ``max_iters`` of its base without effect.
    """
    own = _names_set_by(Path(cfg.filename))
    for name, advice in idle_variables(cfg):
        if name not in own:
            continue
        text = repr(cfg[name]) if name not in PIPELINES else '[...]'
        warnings.warn(f'the config sets {name} = {text}, which has no effect: {advice}', stacklevel=3)


def _names_set_by(file: Path) -> set[str]:
    """Return the variables that a config and those of its bases set that are not mmrope's or a host's."""
    published = Path(config_path('_base_/default_runtime')).parents[1]
    names = set(re.findall(r'^(\w+)\s*=', file.read_text(encoding='utf-8'), re.MULTILINE))
    for base in Config._get_base_files(str(file)):
        path = file.parent / base
        if path.is_file() and published not in path.resolve().parents:  # 'mmdet::...' is no file
            names |= _names_set_by(path)
    return names


def idle_variables(cfg: Config) -> Iterator[tuple[str, str]]:
    """Yield the name of each variable without effect, and what to set in its place.

    Args:
        cfg: config as its file has it, without overrides.
    """
    config = cfg.to_dict()
    parts = {key: config[key] for key in PARTS if config.get(key)}
    for name in (*SIZES, *PIPELINES):
        if name in config and parts and not _holds(parts, _plain(config[name])):
            yield name, 'set the pipelines of the data loaders, or train with --size N'
    for name in LENGTHS:
        if name in config and config.get('train_cfg') and config['train_cfg'].get(name) != config[name]:
            yield name, f'set train_cfg.{name} and param_scheduler, or train with --data DIR --epochs N'
    if 'data_root' in config and parts and not _begins(parts, str(config['data_root'])):
        yield 'data_root', 'give --data-root DIR, or set data_root of each data set and ann_file of each metric'
    if 'metainfo' in config and parts and not _holds(parts, _plain(config['metainfo'])):
        yield 'metainfo', 'set metainfo of each data set'
    heads = heads_of(config.get('model') or {}, scope_of(cfg)) if 'num_classes' in config else []
    if heads and all(head.number != config['num_classes'] for head in heads):
        yield 'num_classes', f'set {", ".join(f"{head.path}.{head.argument}" for head in heads)}'


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items() if key != '_scope_'}
    return [_plain(child) for child in value] if isinstance(value, (list, tuple)) else value


def _values(node: Any) -> Iterator[Any]:
    """Yield a part of a config and all that it holds."""
    yield node
    for child in node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ():
        yield from _values(child)


def _holds(parts: Any, value: Any) -> bool:
    """Say whether a value is one of those in the plain parts of a config."""
    return any(type(part) is type(value) and part == value for part in _values(_plain(parts)))


def _begins(parts: Any, root: str) -> bool:
    return any(isinstance(part, str) and part.startswith(root.rstrip('/')) for part in _values(parts))
