"""The report about loading weights, and its words."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..checkpoints.loading import CheckpointError
from ..text import few

Shape = tuple[int, ...]


class WeightsError(CheckpointError):
    """Weights that do not fit the model; the text names keys and what to change."""


def folded(keys: Iterable[str]) -> list[str]:
    """List keys with ``*`` for the numbers of blocks and stages, each once."""
    return list(dict.fromkeys(re.sub(r'(?<=\.)\d+(?=\.)', '*', key) for key in keys))


def renames(renamed: Mapping[str, str]) -> list[str]:
    """Say which names became which, from new names and old ones."""
    return list(dict.fromkeys(' -> '.join(folded([old]) + folded([new])) for new, old in renamed.items()))


def reasons(dropped: Mapping[str, str]) -> list[str]:
    """Say for each reason which keys were left out, from keys and their reasons."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in dropped.items():
        by_reason.setdefault(reason, []).append(key)
    return [f'{reason} ({few(folded(keys))})' for reason, keys in by_reason.items()]


@dataclass
class LoadReport:
    """A list of what was done with every tensor of a checkpoint and every parameter of a backbone.

    Attributes:
        source: the checkpoint.
        model: the class of the backbone.
        loaded: parameters that were set.
        renamed: of these, those with another name in the checkpoint, and that name.
        resized: of these, those of another size in the checkpoint: the shapes from and to.
        dropped: keys left out on purpose, and why.
        initial: parameters that keep their initial values by design.
        missing: parameters that the checkpoint should have and has not.
        misfits: keys of another shape than the model's: the shapes of checkpoint and model.
        left_over: keys for which the model has no place.
        conflicts: what the model has otherwise than the weights without a key or a shape that shows it.
        assumed: what the checkpoint does not say, and what was taken for it.
        taken: which of several sets of weights in the checkpoint was taken, and which not.
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
        """The misfits in a sentence; empty if the weights fit."""
        shapes = [f'{key} is {old} and not {new}' for key, (old, new) in self.misfits.items()]
        parts = {
            'other than the model': self.conflicts,
            'other shapes': shapes,
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
            'initialised anew': folded(self.initial),
            'missing': folded(self.missing),
            'other shapes': [f'{key} {old}, model {new}' for key, (old, new) in self.misfits.items()],
            'left over': folded(self.left_over),
            'other than the model': self.conflicts,
            'assumed': self.assumed,
        }
        return '\n'.join(lines + [f'  {name}: {few(items, 6)}' for name, items in sections.items() if items])
