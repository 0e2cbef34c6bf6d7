"""Random numbers that a resumed training draws as an uninterrupted one does: to the bit, whatever the workers do.

MMEngine restores the weights, the optimizer, the schedules and the averages of a checkpoint. It does not restore the
generators of random numbers, and could not: those of the workers have run ahead, and other ranks write no checkpoint.
So nothing is restored here either. What is random in a batch and in a step depends on nothing but the seed of the
training, the rank, the epoch and the number of the batch.
"""

import random
from collections.abc import Iterator
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
    """The indices of a batch; who goes over them, in whatever process, is seeded first."""

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
        batches: The batch sampler.
        seed: That of the training.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches = batches
        self.key = (LOADING, seed, get_rank())
        self.stream: Iterator[list[int]] | None = None
        self.start(epoch=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        stream, self.stream = self.stream or iter(self.batches), None
        for indices in stream:
            yield SeededBatch(indices, (*self.key, self.epoch, self.number))
            self.number += 1

    def start(self, epoch: int) -> None:
        """Count from zero."""
        self.epoch, self.number = epoch, 0

    def skip(self, count: int, iterator: Any) -> None:
        """Leave out batches without loading them.

        Args:
            count: How many.
            iterator: That of MMEngine's iteration-based loop, which starts a sampler again when it has come to its end.
        """
        self.stream = iter(self.batches)
        self.number += count
        while count:
            if next(self.stream, None) is None:
                iterator._epoch += 1
                sampler = getattr(self.batches, 'sampler', None)
                if hasattr(sampler, 'set_epoch'):
                    sampler.set_epoch(iterator._epoch)
                self.stream = iter(self.batches)
            else:
                count -= 1


class SeedEachIteration(Hook):
    """Make what is random in an iteration a function of the seed, the rank and the iteration alone."""

    priority = 'VERY_HIGH'
    batches: SeededBatches | None = None

    def before_train(self, runner: Runner) -> None:
        """Number the batches, and order the samples by the seed of the checkpoint where the config has none."""
        loop = runner.train_loop
        loader = loop.dataloader
        if loader.batch_sampler is None:
            runner.logger.warning('A data loader without batches: a resumed training will differ from a whole one.')
            return
        sampler = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(sampler, 'seed') and not (runner.cfg.get('randomness') or {}).get('diff_rank_seed'):
            sampler.seed = runner.seed
        self.batches = SeededBatches(loader.batch_sampler, runner.seed)
        vars(loader)['batch_sampler'] = self.batches  # what a loader refuses to be told once it is built
        if hasattr(loop, 'dataloader_iterator'):
            _restart(loop, sampler)
            iterator = loop.dataloader_iterator
            iterator.skip_iter = lambda count: self.batches.skip(count, iterator)

    def before_train_epoch(self, runner: Runner) -> None:
        """Count the batches of each epoch; an iteration-based loop stays in epoch 0."""
        if self.batches is not None and runner.epoch != self.batches.epoch:
            self.batches.start(runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the step."""
        seed_all(STEPPING, runner.seed, get_rank(), runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note the number of processes, without which a training cannot be resumed to the bit."""
        checkpoint['meta']['processes'] = get_world_size()


def _restart(loop: Any, sampler: Any) -> None:
    """Have the loop draw from the numbered batches, from the first one on.

    MMEngine 0.10.7 starts its iterator, and with it the workers, as soon as the loop is built. May go with it; later
    ones start when the first batch is asked for. A loader with persistent workers would go on with that iterator, and
    the batches that it began with.
    """
    loop.dataloader._iterator = None
    if hasattr(sampler, '_indices_of_rank'):
        sampler.indices = sampler._indices_of_rank()
    loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)
