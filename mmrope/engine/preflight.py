"""What can be said about a config before anything is built from it: wrong overrides, missing files, another data root.

Every mistake is a ``LaunchError`` of one sentence that says what to do.
"""

import difflib
import inspect
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import DATASETS, OPTIMIZERS
from mmengine.runner import Runner

from .annotations import DataError, check_coco, check_maps, check_readable

# What MMEngine reads from a config beside the arguments of Runner, and what the tools read.
READ_FROM_CONFIG = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline',
}  # fmt: skip
RUNNER_KEYS = (set(inspect.signature(Runner).parameters) | READ_FROM_CONFIG) - {'cfg'}
# Dicts whose keys the user invents, so that a new key may resemble another.
FREE_KEYS = {'custom_keys', 'data_prefix', 'metainfo'}
# Catches one wrong letter in eight, and takes `num_channels` for a new key beside `in_channels`.
TYPO_SIMILARITY = 0.87
# Takes `test_pipeline` for a variable beside `tta_pipeline`.
PART_SIMILARITY = 0.92
STAGES = ('train', 'val', 'test')


class LaunchError(ValueError):
    """A mistake in how a tool was called; the text is the whole explanation."""


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check the paths of ``--cfg-options`` against the config they override.

    At the top level MMEngine knows all the keys there are; any other is a variable of the config file, copied to where
    it is used before an override could change it. Further down a new key may be an argument that the config leaves at
    its default, and is an error only where it is almost the name of a key that is there.

    Raises:
        LaunchError: If a path cannot be meant.
    """
    for path in options:
        parts = path.split('.')
        _check_top(cfg, parts[0], path)
        node: Any = cfg._cfg_dict
        for depth, part in enumerate(parts):
            if isinstance(node, Mapping) and part not in node:
                _check_new_key(node, part, '.'.join(parts[:depth]), path)
                break
            node = _child(node, part, '.'.join(parts[:depth]), path)


def _check_top(cfg: Config, key: str, path: str) -> None:
    if key in RUNNER_KEYS:
        return
    if key == 'data_root' and key in cfg:
        raise LaunchError(f'--cfg-options {path}: each data set has its own copy of this variable: use --data-root DIR')
    if key in cfg:
        users = ', '.join(_places_of(key, cfg)) or 'what was made of it'
        raise LaunchError(f'--cfg-options {path}: {key} is a variable that the config has copied: set {users} instead')
    hint = did_you_mean(key, RUNNER_KEYS | set(cfg))
    raise LaunchError(f'--cfg-options {path}: a config has no part {key!r}{hint}')


def _places_of(variable: str, cfg: Config) -> list[str]:
    """Name up to three places of the config that hold the value of a variable, a number only under the same name."""
    value = cfg[variable]
    telling = isinstance(value, (dict, list, tuple, str))

    def search(node: Any, path: str) -> Iterator[str]:
        if node == value and (telling or path.rpartition('.')[2] == variable):
            yield path
        elif isinstance(node, Mapping):
            for key, child in node.items():
                yield from search(child, f'{path}.{key}')

    return [path for key in cfg if key in RUNNER_KEYS for path in search(cfg[key], key)][:3]


def _check_new_key(node: Mapping[str, Any], key: str, where: str, path: str) -> None:
    if not where or where.rpartition('.')[2] in FREE_KEYS:
        return
    # `conv2` beside `conv1` is no typing error
    known = {other for other in node if other.strip('0123456789') != key.strip('0123456789')}
    hint = did_you_mean(key, known, TYPO_SIMILARITY)
    if hint:
        raise LaunchError(f'--cfg-options {path}: {where} has no {key!r}{hint}')


def _child(node: Any, part: str, where: str, path: str) -> Any:
    if isinstance(node, Mapping):
        return node[part]
    if not isinstance(node, list):
        raise LaunchError(f'--cfg-options {path}: {where} is {node!r}, which has no parts: set it as a whole')
    if not part.isdigit() or int(part) >= len(node):
        raise LaunchError(f'--cfg-options {path}: {where} is a list of {len(node)}, which has no {part!r}')
    return node[int(part)]


def did_you_mean(key: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a sentence that suggests the known word most like ``key``, or nothing."""
    similar = difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return f'; did you mean {similar[0]}?' if similar else ''


def check_keys(cfg: Config) -> None:
    """Check that no variable at the top of a config is a misspelt part that is missing: MMEngine would not read it.

    Raises:
        LaunchError: If one is.
    """
    for key in set(cfg) - RUNNER_KEYS:
        hint = did_you_mean(key, RUNNER_KEYS - set(cfg), PART_SIMILARITY)
        if hint:
            raise LaunchError(f'the config has {key}, which nothing reads{hint}')


def check_optimizer(cfg: Config) -> None:
    """Check that the optimiser of a config exists; MMEngine's own error for one that does not has no name in it.

    Raises:
        LaunchError: If it does not.
    """
    kind = (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('type')
    with OPTIMIZERS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        if isinstance(kind, str) and registry.get(kind) is None:
            hint = did_you_mean(kind, set(OPTIMIZERS.module_dict))
            raise LaunchError(f'optim_wrapper.optimizer.type: there is no optimizer {kind}{hint}')


def suggest_type(message: str) -> str:
    """Return the end of MMEngine's sentence that a ``type`` is in no registry: the registered name most like it."""
    found = re.match(r'(\S+) is not in the (?:\S+::)?(.+) registry', message)
    if found is None:
        return ''
    full_names: dict[str, str] = {}
    for root in list(vars(mmengine.registry).values()):
        if isinstance(root, mmengine.registry.Registry) and root.name == found[2]:
            full_names |= {name: name for name in root.module_dict}
            for scope, child in list(root.children.items()):  # importing a host may register another
                child.import_from_location()
                full_names |= {name: f'{scope}.{name}' for name in child.module_dict}
    similar = difflib.get_close_matches(found[1].rpartition('.')[2], full_names, n=1)
    return f'; did you mean {full_names[similar[0]]}?' if similar else ''


def check_checkpoint(path: str | None, argument: str) -> None:
    """Check that a checkpoint of this machine is there; URLs and the names of other schemes are left to the loader.

    Raises:
        LaunchError: If it is not.
    """
    if path is None or re.match(r'[\w.+-]{2,}:', path) or os.path.isfile(os.path.expanduser(path)):
        return
    raise LaunchError(f'{argument}: there is no checkpoint {path}')


def datasets_of(dataset: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the data sets below the wrappers (``RepeatDataset``, ``ConcatDataset``, ``MultiImageMixDataset``, ...)."""
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets')
    if inner is None:
        yield dataset
    else:
        for part in inner:
            yield from datasets_of(part)


def check_data(cfg: Config, stages: tuple[str, ...]) -> None:
    """Check the files and folders which the data sets and evaluators of ``stages`` name, and what annotations hold.

    Boxes that a training skips are a warning.

    Args:
        cfg: The config.
        stages: Some of ``STAGES``; one that the config does not run is skipped.

    Raises:
        LaunchError: For the first that is missing or wrong.
    """
    for stage in stages:
        loader = cfg.get(f'{stage}_dataloader')
        if loader is None or cfg.get(f'{stage}_cfg') is None:
            continue
        for dataset in datasets_of(loader.get('dataset', {})):
            for path in _paths_of(dataset):
                _check_path(path, f'{stage}_dataloader')
            _check_contents(dataset, cfg.get('default_scope'), stage)
        for evaluator in _as_list(cfg.get(f'{stage}_evaluator')):
            for path in _paths_of({**evaluator, 'data_root': None}):
                _check_path(path, f'{stage}_evaluator')


def _paths_of(reader: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a data set or an evaluator reads from this machine."""
    for name in [*_as_list(reader.get('ann_file')), *_prefixes(reader).values()]:
        path = _path_of(reader, name)
        if path is not None:
            yield path


def _prefixes(reader: Mapping[str, Any]) -> Mapping[str, Any]:
    """The folders of a data set by what they hold; MMPreTrain takes a single one for that of the images."""
    prefix = reader.get('data_prefix') or {}
    return {'img_path': prefix} if isinstance(prefix, str) else prefix


def _path_of(reader: Mapping[str, Any], name: Any) -> str | None:
    """A file or folder of a data set, joined as ``BaseDataset`` joins it; ``None`` for one not of this machine."""
    if not isinstance(name, str) or (reader.get('backend_args') or {}).get('backend', 'local') != 'local':
        return None
    path = os.path.join(reader.get('data_root') or '', name)
    return path if path and '://' not in path else None


def _check_path(path: str, reader: str) -> None:
    try:
        check_readable(path)
    except FileNotFoundError:
        raise LaunchError(f'{reader} reads {path}, which does not exist: {_advice(path)}') from None
    except DataError as error:
        raise LaunchError(f'{reader} reads {path}, which {error}') from None


def _advice(path: str) -> str:
    if re.search(r'(^|/)data/digits/', path):
        return 'make it with `make quickstart` or `python tools/make_digits.py`'
    if re.search(r'(^|/)data/single_digits(/|$)', path):
        return 'make it with `python tools/make_digits.py --single`'
    return 'put the data set there as README.md says, or name its folder with --data-root DIR'


def _check_contents(dataset: Mapping[str, Any], scope: str | None, stage: str) -> None:
    """Check the annotations of a ``CocoDataset``, and that the images of a segmentation set have class maps."""
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    if kind is None:
        return  # for the registry to say
    arguments = {key: value.default for key, value in inspect.signature(kind).parameters.items()} | dict(dataset)
    prefixes, file = _prefixes(dataset), _path_of(dataset, dataset.get('ann_file'))
    images, maps = (_path_of(dataset, prefixes.get(key)) for key in ('img_path', 'seg_map_path'))
    try:
        path = file
        if file and kind.__name__ == 'CocoDataset':
            classes = _classes_of(dataset, kind, f'{stage}_dataloader')
            steps = [step for step in dataset.get('pipeline') or () if isinstance(step, Mapping)]
            with_masks = any(step.get('with_mask') for step in steps)
            notes = check_coco(file, classes, _path_of(dataset, prefixes.get('img')), with_masks, stage == 'train')
            for note in notes:
                warnings.warn(f'{stage}_dataloader reads {file}: {note}', stacklevel=2)
        elif images and maps and not dataset.get('ann_file') and 'seg_map_suffix' in arguments:
            path = images
            check_maps(images, maps, arguments['img_suffix'], arguments['seg_map_suffix'])
    except DataError as error:
        raise LaunchError(f'{stage}_dataloader reads {path}, which {error}') from None


def _classes_of(dataset: Mapping[str, Any], kind: type, reader: str) -> Sequence[str] | None:
    """The classes of a data set, as its config or its class has them; ``None`` if a file has."""
    classes = {**kind.METAINFO, **(dataset.get('metainfo') or {})}.get('classes')
    if isinstance(classes, str):
        if os.path.isfile(classes):
            return None
        raise LaunchError(f'{reader} has classes {classes!r}, which must be several names: one alone is ({classes!r},)')
    return classes


def set_data_root(cfg: Config, data_root: str) -> None:
    """Read the data set from another folder: replace the config's data root in all data loaders and evaluators.

    Raises:
        LaunchError: If the folder does not exist, or the config does not have exactly one data root.
    """
    if not os.path.isdir(data_root):
        raise LaunchError(f'--data-root: there is no folder {data_root}')
    loaders = [cfg[f'{stage}_dataloader'] for stage in STAGES if cfg.get(f'{stage}_dataloader')]
    datasets = [dataset for loader in loaders for dataset in datasets_of(loader.get('dataset', {}))]
    roots = {os.path.normpath(dataset['data_root']) for dataset in datasets if dataset.get('data_root')}
    if len(roots) != 1:
        raise LaunchError(
            f'--data-root replaces the data root of a config that has one, and this has {len(roots)}: '
            'use --cfg-options train_dataloader.dataset.data_root=DIR and so on'
        )
    for section in (f'{stage}_{part}' for stage in STAGES for part in ('dataloader', 'evaluator')):
        if cfg.get(section):
            cfg[section] = _moved(cfg[section], *roots, data_root)


def _moved(node: Any, old: str, new: str) -> Any:
    """Replace the folder ``old`` by ``new`` at the start of every path below ``node``."""
    if isinstance(node, Mapping):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(value, old, new) for value in node)
    if isinstance(node, str) and (os.path.normpath(node) + os.sep).startswith(old + os.sep):
        return os.path.join(new, os.path.relpath(node, old)) if os.path.normpath(node) != old else new
    return node


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
