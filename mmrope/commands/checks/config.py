"""What can be said about a config before anything is built from it: wrong overrides, missing files, another data root.

Every mistake is a ``CommandError`` of one sentence that says what to do.
"""

import difflib
import inspect
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner

from ..errors import CommandError
from .annotations import DataError, check_categories, check_readable
from .classes import (
    Head,
    check_class_weights,
    check_heads,
    classes_of_checkpoint,
    compare_classes,
    heads_of,
    list_classes,
)
from .data import (
    Rules,
    check_contents,
    class_of,
    classes_of,
    ignored_by,
    is_classification,
    path_of,
    prefixes_of,
)

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


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check the paths of ``--cfg-options`` against the config they override.

    At the top level MMEngine knows all the keys there are; any other is a variable of the config file, copied to where
    it is used before an override could change it. Further down a new key may be an argument that the config leaves at
    its default, and is an error only where it is almost the name of a key that is there.

    Raises:
        CommandError: If a path cannot be meant.
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
        raise CommandError(
            f'--cfg-options {path}: each data set has its own copy of this variable: use --data-root DIR'
        )
    if key in cfg:
        users = ', '.join(_places_of(key, cfg)) or 'what was made of it'
        raise CommandError(f'--cfg-options {path}: {key} is a variable that the config has copied: set {users} instead')
    hint = did_you_mean(key, RUNNER_KEYS | set(cfg))
    raise CommandError(f'--cfg-options {path}: a config has no part {key!r}{hint}')


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
        raise CommandError(f'--cfg-options {path}: {where} has no {key!r}{hint}')


def _child(node: Any, part: str, where: str, path: str) -> Any:
    if isinstance(node, Mapping):
        return node[part]
    if not isinstance(node, list):
        raise CommandError(f'--cfg-options {path}: {where} is {node!r}, which has no parts: set it as a whole')
    if not part.isdigit() or int(part) >= len(node):
        raise CommandError(f'--cfg-options {path}: {where} is a list of {len(node)}, which has no {part!r}')
    return node[int(part)]


def did_you_mean(key: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a sentence that suggests the known word most like ``key``, or nothing."""
    similar = difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return f'; did you mean {similar[0]}?' if similar else ''


def check_keys(cfg: Config) -> None:
    """Check that no variable at the top of a config is a misspelt part that is missing: MMEngine would not read it.

    Raises:
        CommandError: If one is.
    """
    for key in set(cfg) - RUNNER_KEYS:
        hint = did_you_mean(key, RUNNER_KEYS - set(cfg), PART_SIMILARITY)
        if hint:
            raise CommandError(f'the config has {key}, which nothing reads{hint}')


def check_optimizer(cfg: Config) -> None:
    """Check that the optimiser of a config exists; MMEngine's own error for one that does not has no name in it.

    Raises:
        CommandError: If it does not.
    """
    kind = (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('type')
    with OPTIMIZERS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        if isinstance(kind, str) and registry.get(kind) is None:
            hint = did_you_mean(kind, set(OPTIMIZERS.module_dict))
            raise CommandError(f'optim_wrapper.optimizer.type: there is no optimizer {kind}{hint}')


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
        CommandError: If it is not.
    """
    if path is None or re.match(r'[\w.+-]{2,}:', path) or os.path.isfile(os.path.expanduser(path)):
        return
    raise CommandError(f'{argument}: there is no checkpoint {path}')


def datasets_of(dataset: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the data sets below the wrappers (``RepeatDataset``, ``ConcatDataset``, ``MultiImageMixDataset``, ...)."""
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets')
    if inner is None:
        yield dataset
    else:
        for part in inner:
            yield from datasets_of(part)


def check_data(cfg: Config, stages: tuple[str, ...]) -> None:
    """Check data sets, evaluators and heads of ``stages``: files and folders, what they hold, and the classes.

    What is only suspicious, like boxes that a training skips, is a warning.

    Args:
        cfg: The config.
        stages: Some of ``STAGES``; one that the config does not run is skipped.

    Raises:
        CommandError: For the first thing that is missing or wrong.
    """
    scope = cfg.get('default_scope')
    classes: dict[str, Sequence[str]] = {}
    for stage in stages:
        loader = cfg.get(f'{stage}_dataloader')
        if loader is None or cfg.get(f'{stage}_cfg') is None:
            continue
        datasets, evaluators = list(datasets_of(loader.get('dataset', {}))), _as_list(cfg.get(f'{stage}_evaluator'))
        for part, readers in (('dataloader', datasets), ('evaluator', evaluators)):
            for reader in readers:
                for path in _paths_of(reader if part == 'dataloader' else {**reader, 'data_root': None}):
                    _check_path(path, f'{stage}_{part}')
        known = [(dataset, kind) for dataset in datasets if (kind := class_of(dataset, scope)) is not None]
        heads = heads_of(cfg.get('model') or {}, scope)
        with _as_command_error(f'{stage}_dataloader '):
            _check_contents(known, evaluators, heads, scope, stage)
        with _as_command_error():
            check_class_weights(heads)
            for dataset, kind in known:
                _check_classes(dataset, kind, heads, classes, f'{stage}_dataloader')


@contextmanager
def _as_command_error(start: str = '') -> Iterator[None]:
    try:
        yield
    except CommandError:
        raise
    except ValueError as error:
        raise CommandError(f'{start}{error}') from None


def _check_contents(
    datasets: list[tuple[dict, type]], evaluators: list[dict], heads: Sequence[Head], scope: str | None, stage: str
) -> None:
    """Check what the files of a stage hold; one of several data sets may be there as background alone."""
    training, nothing = stage == 'train', []
    for dataset, kind in datasets:
        rules = Rules(scope, training, ignored_by([head.config for head in heads]), heads[0].number if heads else None)
        path, found = check_contents(dataset, kind, rules)
        for note in found.notes:
            warnings.warn(f'{stage}_dataloader reads {path}: {note}', stacklevel=3)
        nothing.append(found.nothing and f'reads {path}, which {found.nothing}')
        for evaluator in evaluators:
            _check_evaluator(evaluator, path, classes_of(dataset, kind), f'{stage}_evaluator')
    if training and nothing and all(nothing):
        raise ValueError(nothing[0])
    if training or not all(evaluator.get('format_only') for evaluator in evaluators):
        for text in filter(None, nothing):
            advice = '' if training else ': the metrics of its classes will say nothing'
            warnings.warn(f'{stage}_dataloader {text}{advice}', stacklevel=3)


def _check_evaluator(evaluator: Mapping[str, Any], read: str, classes: Sequence[str] | None, name: str) -> None:
    """Check the categories of a metric's own file, unless it is the data set's: the metric numbers labels by it."""
    path = path_of({**evaluator, 'data_root': None}, evaluator.get('ann_file'))
    kind = getattr(evaluator.get('type'), '__name__', evaluator.get('type'))
    if path is None or str(kind).rpartition('.')[2] != 'CocoMetric' or os.path.realpath(path) == os.path.realpath(read):
        return
    try:
        check_categories(path, classes)
    except DataError as error:
        raise CommandError(f'{name} reads {path}, which {error}') from None


def _check_classes(
    dataset: Mapping[str, Any], kind: type, heads: Sequence[Head], others: dict[str, Sequence[str]], name: str
) -> None:
    """Compare the classes of a data set with the heads and with those of other data sets, and add them to these."""
    classes = classes_of(dataset, kind)
    if classes is None or dataset.get('return_classes'):  # the latter of models that take any text for a class
        return
    things = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}.get('thing_classes') or classes
    more = range(len(classes), 10**6) if is_classification(kind) else ()  # which may keep outputs that nothing uses
    check_heads(heads, [len(classes), len(things), *more], f'{name} has {list_classes(classes)}')
    for other in others.items():
        if note := compare_classes(other, (name, classes)):
            warnings.warn(note, stacklevel=4)
    others.setdefault(name, classes)


def check_classes_of_checkpoint(cfg: Config, path: str) -> None:
    """Check that a checkpoint was trained with the classes of the test set.

    Raises:
        CommandError: If they differ.
    """
    trained = classes_of_checkpoint(path) if os.path.isfile(path) else None
    if trained is None or cfg.get('test_dataloader') is None:
        return
    for dataset in datasets_of(cfg.test_dataloader.get('dataset', {})):
        kind = class_of(dataset, cfg.get('default_scope'))
        with _as_command_error():
            classes = kind and classes_of(dataset, kind)
            if classes and (note := compare_classes((path, trained), ('test_dataloader', classes))):
                warnings.warn(note, stacklevel=2)


def _paths_of(reader: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a data set or an evaluator reads from this machine."""
    for name in [*_as_list(reader.get('ann_file')), *prefixes_of(reader).values()]:
        path = path_of(reader, name)
        if path is not None:
            yield path


def _check_path(path: str, reader: str) -> None:
    try:
        check_readable(path)
    except FileNotFoundError:
        raise CommandError(f'{reader} reads {path}, which does not exist: {_advice(path)}') from None
    except DataError as error:
        raise CommandError(f'{reader} reads {path}, which {error}') from None


def _advice(path: str) -> str:
    if re.search(r'(^|/)data/digits/', path):
        return 'make it with `make quickstart` or `python tools/make_digits.py`'
    if re.search(r'(^|/)data/single_digits(/|$)', path):
        return 'make it with `python tools/make_digits.py --single`'
    return 'put the data set there as README.md says, or name its folder with --data-root DIR'


def set_data_root(cfg: Config, data_root: str) -> None:
    """Read the data set from another folder: replace the config's data root in all data loaders and evaluators.

    Raises:
        CommandError: If the folder does not exist, or the config does not have exactly one data root.
    """
    if not os.path.isdir(data_root):
        raise CommandError(f'--data-root: there is no folder {data_root}')
    loaders = [cfg[f'{stage}_dataloader'] for stage in STAGES if cfg.get(f'{stage}_dataloader')]
    datasets = [dataset for loader in loaders for dataset in datasets_of(loader.get('dataset', {}))]
    roots = {os.path.normpath(dataset['data_root']) for dataset in datasets if dataset.get('data_root')}
    if len(roots) != 1:
        raise CommandError(
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
