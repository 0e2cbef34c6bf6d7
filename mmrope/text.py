"""Text that several messages share."""

from collections.abc import Iterable


def few(keys: Iterable[str], at_most: int = 3) -> str:
    """List the first keys, and the number of all keys if there are more."""
    keys = list(keys)
    listed = ', '.join(keys[:at_most])
    return listed if len(keys) <= at_most else f'{listed}, ... ({len(keys)})'
