"""Finding a backbone's weights in what a checkpoint file holds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .report import WeightsError, few

# Where trainers keep the weights, the averaged ones first. MMEngine writes those under `state_dict`, and under
# `ema_state_dict` what they were averaged from.
NESTED = ('state_dict_ema', 'model_ema', 'ema', 'state_dict', 'model', 'module', 'ema_state_dict')
# Of DistributedDataParallel and averaged models, and of the backbone within a detector, segmenter or classifier.
PREFIXES = ('module.', 'backbone.')


class Unwrapped(NamedTuple):
    """The tensors of a backbone under their own names, and the names of those around it."""

    state: dict[str, Tensor]
    others: list[str]


def unwrap(checkpoint: Any, prefix: str | None = None) -> Unwrapped:
    """Find the weights of a backbone in a checkpoint: nested, averaged, or those of a part of a model.

    Args:
        checkpoint: What ``load_checkpoint`` returns.
        prefix: What the backbone's names begin with; ``None`` to find out.

    Raises:
        WeightsError: If there are no weights, or none with this prefix.
    """
    while isinstance(checkpoint, Mapping):
        inner = next((key for key in NESTED if isinstance(checkpoint.get(key), Mapping)), None)
        if inner is None:
            break
        checkpoint = checkpoint[inner]
    tensors = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
    state = {key: value for key, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise WeightsError('the checkpoint holds no weights: a dict of tensors, or one under ' + ', '.join(NESTED))
    if prefix is None:
        return _strip(state, *PREFIXES)
    prefix = prefix if not prefix or prefix.endswith('.') else f'{prefix}.'
    if not any(key.startswith(prefix) for key in state):
        raise WeightsError(f'prefix={prefix!r}: no key of the checkpoint begins with it; its keys: {few(state)}')
    return _strip(state, prefix)


def _strip(state: dict[str, Tensor], *prefixes: str) -> Unwrapped:
    """Take off each prefix that there is, and with it leave what does not have it."""
    others: list[str] = []
    for prefix in prefixes:
        if any(key.startswith(prefix) for key in state):
            others += [key for key in state if not key.startswith(prefix)]
            state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return Unwrapped(state, others)
