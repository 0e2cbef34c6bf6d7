"""Checks that the heads of a model, its data sets and its checkpoint have the same classes."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS

from ...checkpoints.loading import runner_globals
from ...text import few

# Parts of a model that do not classify, or not into the classes of the data set.
OTHER_PARTS = {
    'backbone',
    'neck',
    'data_preprocessor',
    'rpn_head',
    'semantic_head',
    'segm_head',
    'train_cfg',
    'test_cfg',
}
OTHER_HEADS = {'STDCHead'}  # learns edges, from the same maps
PANOPTIC = ('num_things_classes', 'num_stuff_classes')
# Longer lists of classes are cut in a message.
MOST_LISTED = 10


class Head(NamedTuple):
    """A part of a model that tells the data set's classes apart, with the name and value of its number of classes."""

    config: Mapping[str, Any]
    path: str
    argument: str
    number: int


def heads_of(model: Mapping[str, Any], scope: str | None = None) -> list[Head]:
    """Find the heads of a model whose number of classes is known, be it a default.

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
        kind = str(getattr(node.get('type'), '__name__', node.get('type'))).rpartition('.')[2]
        if re.search(r'head[.0-9]*$', path) and not node.get('class_agnostic') and kind not in OTHER_HEADS:
            yield path, node
        for key, value in node.items():
            if key not in OTHER_PARTS:
                # a model that augments its test holds the config's own
                yield from _head_configs(value, path if key == 'module' else f'{path}.{key}')


def _number_of(head: Mapping[str, Any], scope: str | None) -> tuple[str, Any]:
    """Return the argument for the number of classes, and its value."""
    if set(PANOPTIC) & set(head):
        return ' + '.join(PANOPTIC), sum(head.get(key, _default(head, key, scope)) or 0 for key in PANOPTIC)
    return 'num_classes', head['num_classes'] if 'num_classes' in head else _default(head, 'num_classes', scope)


def _default(head: Mapping[str, Any], argument: str, scope: str | None) -> Any:
    """Return the default of an argument of a head's class, or of a class that it passes its arguments on to."""
    kind = head.get('type')
    if any(str(key).endswith('head') for key in head):  # the inner heads tell the classes apart
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


def check_class_weights(heads: Sequence[Head]) -> None:
    """Check that a loss has a weight for each class of its head, and at most one more, for the background.

    Raises:
        ValueError: if a list of weights has another length.
    """
    for head in heads:
        for place, weights in _lists_of(head.config, 'class_weight', head.path):
            if len(weights) not in (head.number, head.number + 1):
                raise ValueError(
                    f'{place} has {len(weights)} values, but {head.path}.{head.argument} is {head.number}: '
                    f'a loss takes {head.number}, or {head.number + 1} with one for the background'
                )


def _lists_of(node: Any, key: str, path: str) -> Iterator[tuple[str, Sequence]]:
    """Yield path and value of each list below a head that an argument is set to."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for name, value in items:
        if name == key and isinstance(value, (list, tuple)):
            yield f'{path}.{name}', value
        elif not str(name).endswith('head'):  # checked by itself
            yield from _lists_of(value, key, f'{path}.{name}')


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
        A note where as many classes have other names, which may be right; ``None`` where they are the same.

    Raises:
        ValueError: if their numbers differ, or only their order does.
    """
    (_, ours), (_, theirs) = one, other
    if list(ours) == list(theirs):
        return None
    text = ', but '.join(f'{name} has {list_classes(classes)}' for name, classes in (one, other))
    if len(ours) != len(theirs):
        raise ValueError(f'{text}: both must have the same')
    first = next(i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
    difference = f'class {first} is {ours[first]} in the one and {theirs[first]} in the other'
    if sorted(ours) == sorted(theirs):
        raise ValueError(f'{text}, in another order: {difference}, so that labels would be confused')
    return f'{text}: {difference}, which is right only if both mean the same'


def classes_of_checkpoint(path: str) -> Sequence[str] | None:
    """Return the classes that a checkpoint was trained with, without reading its weights; ``None`` if it has none.

    So has a file that cannot be read like this: an old format, or code in it. Loading it says what is wrong.
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
    classes = known.get('classes') or known.get('CLASSES')  # in capitals from OpenMMLab's first generation
    return classes if isinstance(classes, (list, tuple)) else None
