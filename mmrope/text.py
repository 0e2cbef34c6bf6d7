"""Words that several messages share."""

from collections.abc import Iterable


def few(keys: Iterable[str], at_most: int = 3) -> str:
    """List some of the keys, and how many there are if these are not all."""
    keys = list(keys)
    listed = ', '.join(keys[:at_most])
    return listed if len(keys) <= at_most else f'{listed}, ... ({len(keys)})'
