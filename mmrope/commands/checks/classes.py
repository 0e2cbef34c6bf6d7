"""Checks that the heads of a model, its data sets and its checkpoint have the same classes."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS

from ...checkpoints.loading import runner_globals
from ...text import few
from ..hosts import type_name

# Parts of a model that do not predict the classes of the data set.
OTHER_PARTS = {
    'backbone', 'neck', 'data_preprocessor', 'rpn_head', 'semantic_head', 'segm_head', 'train_cfg', 'test_cfg',
}  # fmt: skip
OTHER_HEADS = {'STDCHead'}  # predicts edges
PANOPTIC = ('num_things_classes', 'num_stuff_classes')
# Longer lists of classes are cut in a message.
MOST_LISTED = 10


class Head(NamedTuple):
    """A part of a model that predicts the classes of the data set, with the argument for their number and its value."""

    config: Mapping[str, Any]
    path: str
    argument: str
    number: int


def heads_of(model: Mapping[str, Any], scope: str | None = None) -> list[Head]:
    """Find the heads of a model whose number of classes is known, if only as a default.

    Args:
        model: config of a model.
        scope: registry scope of the ``type`` of a head that leaves the number at its default.
    """
    found = [Head(head, path, *_number_of(head, scope)) for path, head in _head_configs(model, 'model')]
    return [head for head in found if isinstance(head.number, int)]


def _head_configs(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from _head_configs(part, f'{path}.{i}')
    elif isinstance(node, Mapping):
        if re.search(r'head[.0-9]*$', path) and not node.get('class_agnostic') and type_name(node) not in OTHER_HEADS:
            yield path, node
        for key, value in node.items():
            if key not in OTHER_PARTS:
                # `module` of a test-time augmentation is the config's own model
                yield from _head_configs(value, path if key == 'module' else f'{path}.{key}')


def _number_of(head: Mapping[str, Any], scope: str | None) -> tuple[str, Any]:
    """Return the argument for the number of classes, and its value."""
    if set(PANOPTIC) & set(head):
        return ' + '.join(PANOPTIC), sum(head.get(key, _default(head, key, scope)) or 0 for key in PANOPTIC)
    return 'num_classes', head['num_classes'] if 'num_classes' in head else _default(head, 'num_classes', scope)


def _default(head: Mapping[str, Any], argument: str, scope: str | None) -> Any:
    """Return the default of an argument of a head's class or, if it passes its arguments on, of a base class."""
    kind = head.get('type')
    if any(str(key).endswith('head') for key in head):  # the inner heads predict the classes
        return None
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    bases: tuple[Any, ...] = inspect.getmro(kind) if inspect.isclass(kind) else ()
    for base in bases:
        parameter = inspect.signature(base.__init__).parameters.get(argument)
        if parameter is not None:
            return parameter.default
    return None


def check_heads(heads: Sequence[Head], allowed: Sequence[int], whose: str) -> None:
    """Check that each head has as many classes as a data set.

    Args:
        heads: of the model.
        allowed: number of classes; for panoptic data sets also the number of things.
        whose: name and classes of the data set, for the error.

    Raises:
        ValueError: if one has another number.
    """
    wrong = [f'{head.path}.{head.argument} is {head.number}' for head in heads if head.number not in allowed]
    if wrong:
        advice = f'set {allowed[0]} there, or name the classes of the data set in its metainfo'
        raise ValueError(f'{few(wrong, MOST_LISTED)}, but {whose}: {advice}')


def list_classes(classes: Sequence[str]) -> str:
    """Return number and names of classes, as in ``2 classes (cat, dog)``."""
    plural = 'class' if len(classes) == 1 else 'classes'
    return f'{len(classes)} {plural} ({few(map(str, classes), MOST_LISTED)})'


def compare_classes(one: tuple[str, Sequence[str]], other: tuple[str, Sequence[str]]) -> str | None:
    """Compare the classes of two data sets, or of a checkpoint and a data set.

    Args:
        one: name and classes, in order.
        other: name and classes of the other.

    Returns:
        A note if as many classes have other names, which may be intended; ``None`` if they are the same.

    Raises:
        ValueError: if they differ in number, or only in order.
    """
    (_, ours), (_, theirs) = one, other
    if list(ours) == list(theirs):
        return None
    text = ', but '.join(f'{name} has {list_classes(classes)}' for name, classes in (one, other))
    if len(ours) != len(theirs):
        raise ValueError(f'{text}: both must have the same classes')
    first = next(i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
    difference = f'class {first} is {ours[first]} in the one and {theirs[first]} in the other'
    if sorted(ours) == sorted(theirs):
        raise ValueError(f'{text}, in another order: {difference}, so that labels would be confused')
    return f'{text}: {difference}, which is right only if both mean the same'


def classes_of_checkpoint(path: str) -> Sequence[str] | None:
    """Return the classes that a checkpoint was trained with, without reading its weights; ``None`` if it has none.

    A file that cannot be read this way, of an old format or with code in it, counts as one without classes: loading it
    reports the problem.
    """
    try:
        with torch.serialization.safe_globals(runner_globals()):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except Exception:
        return None
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    known = {**meta, **(meta.get('dataset_meta') or {})}
    classes = known.get('classes') or known.get('CLASSES')  # capitals: OpenMMLab 1.x
    return classes if isinstance(classes, (list, tuple)) else None
