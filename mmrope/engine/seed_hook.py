"""Random numbers that do not depend on when a training was interrupted: a resumed one equals a whole one to the bit.

MMEngine restores weights, optimizer, schedules and averages. It does not restore random number generators, and could
not: those of the workers have run ahead, and other ranks write no checkpoint. So every batch and every step is seeded
anew, by the seed of the training, the rank, the epoch and the number of the batch.
"""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

LOADING, STEPPING = 0, 1


def seed_all(*key: int) -> None:
    """Seed ``random``, NumPy and PyTorch, on all devices, with a mixture of some numbers."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class SeededBatch(list):
    """Indices of a batch. Iterating over them seeds the process that does, be it a worker or not."""

    def __init__(self, indices: list[int], key: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.key = key

    def __iter__(self) -> Iterator[int]:
        seed_all(*self.key)
        return super().__iter__()

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededBatch, (self[:], self.key)


class SeededBatches:
    """The batch sampler of a data loader, with numbered batches.

    Args:
        batches: the batch sampler.
        seed: of the training.
        number: of the first batch.
    """

    def __init__(self, batches: Any, seed: int, number: int = 0) -> None:
        self.batches = batches
        self.key = (LOADING, seed, get_rank())
        self.epoch, self.number = 0, number
        self.stream: Iterator[list[int]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        stream, self.stream = self.stream or iter(self.batches), None
        for indices in stream:
            yield SeededBatch(indices, (*self.key, self.epoch, self.number))
            self.number += 1

    def skip(self, iterator: Any, count: int) -> None:
        """Leave out batches without loading them.

        Args:
            iterator: of MMEngine's iteration-based loop, which starts a sampler again when it has come to its end.
            count: of batches.
        """
        self.stream = iter(self.batches)
        self.number += count
        while count:
            if next(self.stream, None) is not None:
                count -= 1
                continue
            iterator._epoch += 1
            sampler: Any = getattr(self.batches, 'sampler', None)
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(iterator._epoch)
            self.stream = iter(self.batches)


class SeedEachIteration(Hook):
    """Hook that makes all randomness of an iteration a function of the seed, the rank and the iteration."""

    priority = 'VERY_HIGH'
    batches: SeededBatches | None = None

    def before_train(self, runner: Runner) -> None:
        """Number the batches, and order the samples by the seed of the checkpoint where the config has none."""
        loop = runner.train_loop
        loader = loop.dataloader
        if loader.batch_sampler is None:
            runner.logger.warning('A data loader without batches: a resumed training will differ from a whole one.')
            return
        sampler: Any = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(sampler, 'seed') and not (runner.cfg.get('randomness') or {}).get('diff_rank_seed'):
            sampler.seed = runner.seed
        iterator: Any = getattr(loop, 'dataloader_iterator', None)
        # MMEngine 0.10.12 skips batches by the sampler, or else loads them if there are workers; 0.10.7 loads all.
        skips, by_sampler = hasattr(iterator, 'skip_iter'), hasattr(loader.sampler, 'skip')
        self.batches = SeededBatches(loader.batch_sampler, runner.seed, runner.iter if skips and by_sampler else 0)
        vars(loader)['batch_sampler'] = self.batches  # a loader refuses the assignment once it is built
        if getattr(iterator, '_iterator', None) is not None:
            _restart(loop, sampler)
        elif skips and not by_sampler:
            iterator.skip_iter = partial(self.batches.skip, iterator)

    def before_train_epoch(self, runner: Runner) -> None:
        """Count the batches of each epoch; an iteration-based loop stays in epoch 0."""
        if self.batches is not None and runner.epoch != self.batches.epoch:
            self.batches.epoch, self.batches.number = runner.epoch, 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the step."""
        seed_all(STEPPING, runner.seed, get_rank(), runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note the number of processes, without which a training cannot be resumed to the bit."""
        checkpoint['meta']['processes'] = get_world_size()


def _restart(loop: Any, sampler: Any) -> None:
    """Have the loop draw from the numbered batches, from the first one on.

    MMEngine 0.10.7 starts its iterator, and the workers, when the loop is built. This may go with it: 0.10.12 starts
    them for the first batch. A loader with persistent workers would keep the iterator and the batches it began with.
    """
    loop.dataloader._iterator = None
    if hasattr(sampler, '_indices_of_rank'):
        sampler.indices = sampler._indices_of_rank()
    loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)
