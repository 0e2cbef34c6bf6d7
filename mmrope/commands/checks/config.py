"""Checks of a config before anything is built from it: overrides, files and classes.

Every mistake is a ``CommandError`` of one sentence that says how to correct it.
"""

import copy
import difflib
import inspect
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner

from ..errors import CommandError
from ..hosts import scope_of, type_name
from .annotations import check_categories
from .classes import Head, check_heads, classes_of_checkpoint, compare_classes, heads_of, list_classes
from .data import (
    Rules,
    check_contents,
    class_of,
    classes_of,
    ignored_by,
    is_classification,
    path_of,
    prefixes_of,
    reads_panoptic,
    steps_of,
)
from .files import check_readable, reading

# Keys that MMEngine or a command reads from a config in addition to the arguments of Runner.
READ_FROM_CONFIG = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline',
}  # fmt: skip
RUNNER_KEYS = (set(inspect.signature(Runner).parameters) | READ_FROM_CONFIG) - {'cfg'}
# `param_schedulr` is similar enough to `param_scheduler`, and `test_pipeline` to no key.
TYPO_SIMILARITY = 0.92
STAGES = ('train', 'val', 'test')


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check that ``--cfg-options`` fit the config that they override.

    MMEngine knows all keys of the top level. Any other is a variable of the config file, which is copied to where it is
    used before an override can change it. Further down, a new key may be an argument that the config does not set.

    Raises:
        CommandError: if nothing would read a key, or MMEngine cannot set it.
    """
    for path, value in options.items():
        first = path.partition('.')[0]
        start = f'--cfg-options {path}: '
        if first == 'data_root' and first in cfg:
            raise CommandError(f'{start}each data set has its own copy of this variable: use --data-root DIR')
        if first not in RUNNER_KEYS and first in cfg:
            raise CommandError(f'{start}{first} is a variable that the config has copied: set the keys made from it')
        if first not in RUNNER_KEYS:
            hint = did_you_mean(first, RUNNER_KEYS | set(cfg))
            raise CommandError(f'{start}unknown config key {first!r}{hint}')
        try:
            copy.deepcopy(cfg).merge_from_dict({path: value})
        except (AttributeError, KeyError, TypeError) as error:
            raise CommandError(f'{start}MMEngine cannot set it: {error.args[0]}') from None


def did_you_mean(key: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of an error that suggests the known word most similar to ``key``, if any is."""
    similar = difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return f'; did you mean {similar[0]}?' if similar else ''


def check_keys(cfg: Config) -> None:
    """Warn about variables that may be a misspelt top-level key, which MMEngine would not read."""
    for key in set(cfg) - RUNNER_KEYS:
        hint = did_you_mean(key, RUNNER_KEYS - set(cfg), TYPO_SIMILARITY)
        if hint:
            warnings.warn(f'the config has {key}, which MMEngine does not read{hint}', stacklevel=2)


def need(cfg: Config, key: str) -> Any:
    """Return a part of a config.

    Raises:
        CommandError: if the config has none.
    """
    if cfg.get(key) is None:
        raise CommandError(f'{cfg.filename or "the config"}: there is no {key}')
    return cfg[key]


def check_optimizer(cfg: Config) -> None:
    """Check that the optimizer of a config is registered; MMEngine's own error does not name it.

    Raises:
        CommandError: if it does not exist.
    """
    kind = (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('type')
    with OPTIMIZERS.switch_scope_and_registry(scope_of(cfg)) as registry:
        if isinstance(kind, str) and registry.get(kind) is None:
            hint = did_you_mean(kind, set(OPTIMIZERS.module_dict))
            raise CommandError(f'optim_wrapper.optimizer.type: there is no optimizer {kind}{hint}')


def suggest_type(message: str) -> str:
    """Return the end of MMEngine's error about an unregistered ``type``: the most similar registered name, if any."""
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
    """Check that a local checkpoint exists; URLs and other schemes are left to the loader.

    Raises:
        CommandError: if it does not.
    """
    if path is None or re.match(r'[\w.+-]{2,}:', path) or os.path.isfile(os.path.expanduser(path)):
        return
    if os.path.isdir(os.path.expanduser(path)):
        raise CommandError(f'{argument}: {path} is a folder; name a file in it')
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
    """Check the data sets, evaluators and heads of ``stages``: files, their content, and classes.

    A finding that may be intended, like boxes that a training skips, is a warning.

    Args:
        cfg: the config.
        stages: some of ``STAGES``; those that the config does not run are skipped.

    Raises:
        CommandError: for the first fault.
    """
    scope = scope_of(cfg)
    classes: dict[str, Sequence[str]] = {}
    heads = heads_of(cfg.get('model') or {}, scope)
    for stage in stages:
        loader = cfg.get(f'{stage}_dataloader')
        if loader is None or cfg.get(f'{stage}_cfg') is None:
            continue
        datasets, evaluators = list(datasets_of(loader.get('dataset', {}))), _as_list(cfg.get(f'{stage}_evaluator'))
        _check_panoptic([dataset.get('pipeline') for dataset in datasets], evaluators, stage)
        for dataset in datasets:
            _check_paths(dataset, f'{stage}_dataloader')
        for evaluator in evaluators:
            _check_paths({**evaluator, 'data_root': None}, f'{stage}_evaluator')
        known = [(dataset, kind) for dataset in datasets if (kind := class_of(dataset, scope)) is not None]
        with _as_command_error(f'{stage}_dataloader '):
            _check_contents(known, evaluators, heads, scope, stage)
        with _as_command_error():
            for dataset, kind in known:
                _check_classes(dataset, kind, heads, classes, f'{stage}_dataloader')


def _check_panoptic(pipelines: list[Any], evaluators: list[dict], stage: str) -> None:
    """Check that the package is installed with which MMDetection reads panoptic segments.

    Raises:
        CommandError: if it is not.
    """
    readers = {'dataloader': steps_of(pipelines), 'evaluator': evaluators}
    reader = next((name for name, parts in readers.items() if any(map(reads_panoptic, parts))), None)
    if reader and find_spec('panopticapi') is None:
        raise CommandError(
            f'{stage}_{reader} reads panoptic segments, for which panopticapi is not installed: '
            'pip install git+https://github.com/cocodataset/panopticapi.git'
        )


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
    """Check the files of a stage; of several data sets, some may hold only backgrounds."""
    training, nothing = stage == 'train', []
    rules = Rules(scope, training, ignored_by([head.config for head in heads]), heads[0].number if heads else None)
    for dataset, kind in datasets:
        path, found = check_contents(dataset, kind, rules)
        for note in found.notes:
            warnings.warn(f'{stage}_dataloader reads {path}: {note}', stacklevel=3)
        nothing.append(found.nothing and f'reads {path}, which {found.nothing}')
        for evaluator in evaluators:
            _check_evaluator(evaluator, path, classes_of(dataset, kind), f'{stage}_evaluator')
    if training and nothing and all(nothing):
        raise ValueError(nothing[0])
    if training or not all(evaluator.get('format_only') for evaluator in evaluators):
        advice = '' if training else ': the metrics will be empty'
        for text in filter(None, nothing):
            warnings.warn(f'{stage}_dataloader {text}{advice}', stacklevel=3)


def _check_evaluator(evaluator: Mapping[str, Any], read: str, classes: Sequence[str] | None, name: str) -> None:
    """Check the categories of a metric's own file, by which it numbers labels, unless the data set reads that too."""
    path = path_of({**evaluator, 'data_root': None}, evaluator.get('ann_file'))
    if path is None or type_name(evaluator) != 'CocoMetric' or os.path.realpath(path) == os.path.realpath(read):
        return
    with _as_command_error(f'{name} '), reading(path, 'CocoMetric'):
        check_categories(path, classes)


def _check_classes(
    dataset: Mapping[str, Any], kind: type, heads: Sequence[Head], others: dict[str, Sequence[str]], name: str
) -> None:
    """Compare the classes of a data set with the heads and with ``others``, and add them to ``others``."""
    classes = classes_of(dataset, kind)
    if classes is None or dataset.get('return_classes'):  # for models that take any text as a class
        return
    things = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}.get('thing_classes') or classes
    more = range(len(classes), 10**6) if is_classification(kind) else ()  # a classifier may have unused outputs
    check_heads(heads, [len(classes), len(things), *more], f'{name} has {list_classes(classes)}')
    for other in others.items():
        if note := compare_classes(other, (name, classes)):
            warnings.warn(note, stacklevel=4)
    others.setdefault(name, classes)


def check_classes_of_checkpoint(cfg: Config, path: str) -> None:
    """Check that a checkpoint was trained with the classes of the test set.

    Raises:
        CommandError: if they differ.
    """
    trained = classes_of_checkpoint(path) if os.path.isfile(path) else None
    if trained is None or cfg.get('test_dataloader') is None:
        return
    for dataset in datasets_of(cfg.test_dataloader.get('dataset', {})):
        kind = class_of(dataset, scope_of(cfg))
        with _as_command_error():
            classes = kind and classes_of(dataset, kind)
            if classes and (note := compare_classes((path, trained), ('test_dataloader', classes))):
                warnings.warn(note, stacklevel=2)


def _check_paths(reader: Mapping[str, Any], name: str) -> None:
    """Check that the files and folders of a data set or an evaluator can be read."""
    for given in [*_as_list(reader.get('ann_file')), *prefixes_of(reader).values()]:
        path = path_of(reader, given)
        if path is None:
            continue
        with _as_command_error(f'{name} '), reading(path):
            check_readable(path)


def set_data_root(cfg: Config, data_root: str) -> None:
    """Replace the data root in all data loaders and evaluators of a config.

    Raises:
        CommandError: if the folder does not exist, or the config does not have exactly one data root.
    """
    if not os.path.isdir(data_root):
        raise CommandError(f'--data-root: there is no folder {data_root}')
    loaders = [cfg[f'{stage}_dataloader'] for stage in STAGES if cfg.get(f'{stage}_dataloader')]
    datasets = [dataset for loader in loaders for dataset in datasets_of(loader.get('dataset', {}))]
    roots = {os.path.normpath(dataset['data_root']) for dataset in datasets if dataset.get('data_root')}
    if len(roots) != 1:
        raise CommandError(
            f'--data-root needs a config with one data root, but this one has {len(roots)}: '
            'use --cfg-options train_dataloader.dataset.data_root=DIR and so on'
        )
    (old,) = roots
    for section in (f'{stage}_{part}' for stage in STAGES for part in ('dataloader', 'evaluator')):
        if cfg.get(section):
            cfg[section] = _moved(cfg[section], old, data_root)


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
