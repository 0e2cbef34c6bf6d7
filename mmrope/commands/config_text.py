"""Differences between a config and the text of another one, which MMEngine keeps in its checkpoints.

The text is parsed as data and never run.
"""

import ast
from collections.abc import Collection, Iterator, Mapping
from typing import Any

MISSING = 'not set'
LONGEST_VALUE = 60


def read_config(text: str) -> dict[str, Any]:
    """Parse the ``pretty_text`` of a config. Tuples become lists; a value that is no literal stays source code.

    Returns:
        The config; empty if the text is not Python.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return {}
    return {
        node.targets[0].id: _value(node.value)
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        parts = [_value(part) for part in node.args]  # dict({...}) holds keys that are no identifiers
        return dict(*parts, **{keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg})
    if isinstance(node, ast.Dict):
        return {ast.unparse(key).strip('\'"'): _value(value) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)


def differences(old: Any, new: Any, ignored: Collection[str] = (), path: str = '') -> Iterator[tuple[str, Any, Any]]:
    """Yield the path, the old and the new value of each difference; a value that is not set is ``MISSING``.

    Args:
        old: config, or a part of one.
        new: the same part of another config.
        ignored: keys to leave out.
        path: where ``old`` and ``new`` are in their configs.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        pairs = {key: (old.get(key, MISSING), new.get(key, MISSING)) for key in (*old, *new) if key not in ignored}
    elif isinstance(old, list) and isinstance(new, list) and any(isinstance(item, Mapping) for item in (*old, *new)):
        length = max(len(old), len(new))
        padded = (part + [MISSING] * (length - len(part)) for part in (old, new))
        pairs = {str(index): pair for index, pair in enumerate(zip(*padded, strict=True))}
    else:
        if old != new:
            yield path, old, new
        return
    for key, (one, other) in pairs.items():
        yield from differences(one, other, ignored, f'{path}.{key}' if path else key)


def describe(change: tuple[str, Any, Any]) -> str:
    """Format a difference as ``path old -> new``."""
    path, *values = change
    old, new = (text if len(text) <= LONGEST_VALUE else f'{text[:LONGEST_VALUE]} ...' for text in map(str, values))
    return f'{path} {old} -> {new}'
