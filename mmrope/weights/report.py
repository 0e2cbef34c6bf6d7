"""The report about loading weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..checkpoints.loading import CheckpointError
from ..text import few

Shape = tuple[int, ...]


class WeightsError(CheckpointError):
    """Weights that do not fit the model; the message names keys and what to change."""


def folded(keys: Iterable[str]) -> list[str]:
    """List keys without duplicates, with ``*`` for the numbers of blocks and stages."""
    return list(dict.fromkeys(re.sub(r'(?<=\.)\d+(?=\.)', '*', key) for key in keys))


def renames(renamed: Mapping[str, str]) -> list[str]:
    """List the renamings as ``old -> new``, from a mapping of new names to old ones."""
    return list(dict.fromkeys(' -> '.join(folded([old]) + folded([new])) for new, old in renamed.items()))


def reasons(dropped: Mapping[str, str]) -> list[str]:
    """List each reason with the keys left out for it, from a mapping of keys to reasons."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in dropped.items():
        by_reason.setdefault(reason, []).append(key)
    return [f'{reason} ({few(folded(keys))})' for reason, keys in by_reason.items()]


@dataclass
class LoadReport:
    """Account of every tensor of a checkpoint and every parameter of a backbone.

    Attributes:
        source: name of the checkpoint.
        model: class of the backbone.
        loaded: parameters that were set.
        renamed: loaded parameters with another name in the checkpoint, and that name.
        resized: loaded parameters that were resized: shapes (or grids) before and after.
        dropped: keys left out on purpose, and the reason.
        initial: parameters that keep their initial values by design.
        missing: parameters that the checkpoint should have but does not.
        misfits: keys whose shape differs from the model's: shapes in checkpoint and model.
        left_over: keys for which the model has no parameter.
        conflicts: differences between weights and model that no key or shape shows.
        assumed: assumptions about facts that the checkpoint does not state.
        taken: which of several sets of weights in the checkpoint was taken, and which were not.
    """

    source: str
    model: str
    loaded: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    initial: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misfits: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    taken: str = ''

    @property
    def problems(self) -> str:
        """Everything that does not fit, in one sentence; empty if the weights fit."""
        shapes = [f'{key} is {old}, not {new}' for key, (old, new) in self.misfits.items()]
        parts = {
            'different from the model': self.conflicts,
            'different shapes': shapes,
            'missing': self.missing,
            'left over': self.left_over,
        }
        return '; '.join(f'{name}: {few(items, 2)}' for name, items in parts.items() if items)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.initial) + len(self.missing) + len(self.misfits)
        lines = [f'{self.source} -> {self.model}: loaded {len(self.loaded)} of {total} parameters']
        sections = {
            'taken': [self.taken] if self.taken else [],
            'renamed': renames(self.renamed),
            'resized': [f'{key} {old} -> {new}' for key, (old, new) in self.resized.items()],
            'dropped': reasons(self.dropped),
            'newly initialised': folded(self.initial),
            'missing': folded(self.missing),
            'different shapes': [f'{key} {old}, model {new}' for key, (old, new) in self.misfits.items()],
            'left over': folded(self.left_over),
            'different from the model': self.conflicts,
            'assumed': self.assumed,
        }
        return '\n'.join(lines + [f'  {name}: {few(items, 6)}' for name, items in sections.items() if items])
