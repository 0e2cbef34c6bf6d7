"""Random numbers that do not depend on interruptions: a resumed training equals an uninterrupted one to the bit.

MMEngine restores weights, optimiser, schedules and averages. It cannot restore random number generators: those of the
workers have run ahead, and other ranks write no checkpoint. So every batch and every step is seeded anew, by the seed
of the training, the rank, the epoch and the number of the batch.
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
    """Seed ``random``, NumPy and PyTorch, on all devices, with a hash of some numbers."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class SeededBatch(list):
    """Indices of a batch. Iterating over them seeds the process, a worker or the main one."""

    def __init__(self, indices: list[int], key: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.key = key

    def __iter__(self) -> Iterator[int]:
        seed_all(*self.key)
        return super().__iter__()

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededBatch, (self[:], self.key)


class SeededBatches:
    """Batch sampler of a data loader that numbers its batches.

    Args:
        batches: the batch sampler.
        seed: seed of the training.
        number: number of the first batch.
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
        """Skip batches without loading them.

        Args:
            iterator: the one of MMEngine's iteration-based loop, which restarts a sampler at its end.
            count: number of batches.
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
        """Number the batches, and order the samples by the checkpoint's seed if the config has none."""
        loop = runner.train_loop
        loader = loop.dataloader
        if loader.batch_sampler is None:
            runner.logger.warning(
                'The data loader has no batch sampler: a resumed training will differ from an uninterrupted one.'
            )
            return
        sampler: Any = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(sampler, 'seed') and not (runner.cfg.get('randomness') or {}).get('diff_rank_seed'):
            sampler.seed = runner.seed
        iterator: Any = getattr(loop, 'dataloader_iterator', None)
        # To skip batches, MMEngine 0.10.12 asks the sampler, or else loads them if there are workers; 0.10.7 loads all.
        skips, by_sampler = hasattr(iterator, 'skip_iter'), hasattr(loader.sampler, 'skip')
        self.batches = SeededBatches(loader.batch_sampler, runner.seed, runner.iter if skips and by_sampler else 0)
        vars(loader)['batch_sampler'] = self.batches  # the loader refuses a plain assignment
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
        """Note the number of processes, which an exact resume needs."""
        checkpoint['meta']['processes'] = get_world_size()


def _restart(loop: Any, sampler: Any) -> None:
    """Make the loop draw from the numbered batches, from the first one on.

    MMEngine 0.10.7 starts its iterator and the workers when the loop is built, 0.10.12 at the first batch: this
    function can go with 0.10.7. A loader with persistent workers would keep the iterator and the batches it began with.
    """
    loop.dataloader._iterator = None
    if hasattr(sampler, '_indices_of_rank'):
        sampler.indices = sampler._indices_of_rank()
    loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)
