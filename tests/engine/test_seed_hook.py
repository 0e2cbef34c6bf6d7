"""The random numbers of a batch depend on the batch alone."""

import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader

from mmrope.engine.seed_hook import SeedEachIteration, SeededBatch


def draw(*_: object) -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Noise:
    """A data set of random numbers."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return (index, *draw())


class EagerIterator:
    """Loads as soon as it is built, as that of MMEngine 0.10.7."""

    def __init__(self, loader: DataLoader) -> None:
        self._iterator = iter(loader)

    def __next__(self) -> Any:
        return next(self._iterator)


class Epochs(list):
    """A sampler with another order in each epoch."""

    def set_epoch(self, epoch: int) -> None:
        self[:] = [(value + epoch) % 4 for value in range(4)]


class EndingBatches(BatchSampler):
    """A batch sampler of a class of its own, by which MMEngine cannot skip; an epoch has two batches."""

    def __init__(self) -> None:
        super().__init__(Epochs(range(4)), 2, drop_last=False)


def batches(count: int, done: int = 0, iterator: type = _InfiniteDataloaderIterator, **options: Any) -> list:
    """Load as an iteration-based loop does that resumes after ``done`` iterations."""
    if 'batch_sampler' not in options:
        options |= dict(batch_size=3, sampler=InfiniteSampler(range(7), seed=1))
    loader = DataLoader(Noise(), collate_fn=list, **options)
    loop = SimpleNamespace(dataloader=loader, dataloader_iterator=iterator(loader))
    SeedEachIteration().before_train(SimpleNamespace(train_loop=loop, cfg={}, seed=3, iter=done))
    draw()  # what the training drew meanwhile
    if hasattr(loop.dataloader_iterator, 'skip_iter'):
        loop.dataloader_iterator.skip_iter(done)
    else:
        for _ in range(done):
            next(loop.dataloader_iterator)
    return [next(loop.dataloader_iterator) for _ in range(count)]


@pytest.mark.parametrize('options', [{}, {'num_workers': 2}, {'num_workers': 1, 'persistent_workers': True}], ids=str)
@pytest.mark.parametrize('iterator', [_InfiniteDataloaderIterator, EagerIterator])
def test_batches_are_the_same_wherever_loading_begins(iterator: type, options: dict[str, Any]) -> None:
    whole = batches(6)
    assert batches(2, 4, iterator, **options) == whole[4:]
    assert len({sample[1:] for batch in whole for sample in batch}) == 18
    order = iter(InfiniteSampler(range(7), seed=3))  # that of the training, not the sampler's own
    assert [sample[0] for batch in whole for sample in batch] == [next(order) for _ in range(18)]


@pytest.mark.parametrize('options', [{}, {'num_workers': 2}, {'num_workers': 1, 'persistent_workers': True}], ids=str)
def test_batches_of_a_sampler_that_cannot_skip_are_counted_over_its_epochs(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # of MMEngine, at the end of an epoch
    whole = batches(7, batch_sampler=EndingBatches())
    assert [[sample[0] for sample in batch] for batch in whole[3:6]] == [[3, 0], [2, 3], [0, 1]]
    assert batches(4, 3, batch_sampler=EndingBatches(), **options) == whole[3:]


@pytest.mark.skipif(not hasattr(InfiniteSampler, 'skip'), reason='MMEngine 0.10.7 loads what it skips')
@pytest.mark.parametrize('options', [{}, {'num_workers': 2, 'prefetch_factor': 1}], ids=str)
@pytest.mark.parametrize('kind', ['sampler', 'batch_sampler'])
def test_skipped_batches_are_not_loaded(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr('time.sleep', lambda seconds: None)

    def load(self: Noise, index: int) -> int:
        with (tmp_path / 'loaded').open('a') as file:  # by workers, too
            file.write('.')
        return index

    monkeypatch.setattr(Noise, '__getitem__', load)
    batches(1, 10**3, **({'batch_sampler': EndingBatches()} if kind == 'batch_sampler' else {}), **options)
    assert len((tmp_path / 'loaded').read_text()) <= 9  # one batch for the loop, two that the workers load ahead


def test_pickling_a_batch_seeds_nothing() -> None:
    batch = SeededBatch([4, 2], (1, 2, 3))
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    copy = pickle.loads(pickle.dumps(batch))
    assert torch.rand(()) == expected
    assert list(copy) == [4, 2] and copy.key == (1, 2, 3)
    list(batch)
    first = draw()
    assert draw() != first
    list(copy)
    assert draw() == first
