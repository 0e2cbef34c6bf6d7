"""What is random in a batch depends on the batch alone."""

import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from mmrope.engine.seed_hook import SeedEachIteration, SeededBatch, SeededBatches


def draw(*_: object) -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Noise:
    """A data set of random numbers."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return (index, *draw())


def batches(count: int, skip: int = 0, seed: int = 1, workers: int = 0) -> list[list[tuple[float, ...]]]:
    """Load as MMEngine's iteration-based loop does; ``skip`` batches are left out first."""
    sampler = InfiniteSampler(range(7), seed=3)
    loader = DataLoader(Noise(), batch_size=3, sampler=sampler, num_workers=workers, collate_fn=list)
    seeded = SeededBatches(loader.batch_sampler, seed)
    vars(loader)['batch_sampler'] = seeded
    seeded.skip(skip, iterator=None)
    draw()  # what the training drew meanwhile
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_batches_are_the_same_wherever_loading_begins(workers: int) -> None:
    whole = batches(9)
    assert batches(4, skip=5, workers=workers) == whole[5:]
    assert len({sample[1:] for batch in whole for sample in batch}) == 27
    assert [[sample[0] for sample in batch] for batch in whole] == [
        [sample[0] for sample in batch] for batch in batches(9, seed=2)
    ]
    assert batches(1, seed=2) != whole[:1]


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


def test_a_sampler_that_ends_starts_again_with_the_next_epoch() -> None:
    class Order(list):
        def set_epoch(self, epoch: int) -> None:
            self[:] = [10 * epoch + value for value in range(4)]

    class Iterator:
        _epoch = 0

    seeded, iterator = SeededBatches(BatchSampler(Order(range(4)), 2, drop_last=False), 0), Iterator()
    seeded.skip(5, iterator)
    assert [list(batch) for batch in seeded] == [[22, 23]]
    assert (iterator._epoch, seeded.number) == (2, 6)


@pytest.mark.parametrize('options', [{}, {'num_workers': 1}, {'num_workers': 1, 'persistent_workers': True}])
def test_a_loop_that_loads_as_soon_as_it_is_built_begins_again(options: dict[str, object]) -> None:
    class EagerIterator:  # that of MMEngine 0.10.7
        def __init__(self, loader: DataLoader) -> None:
            self.batches = iter(loader)

    sampler = InfiniteSampler(range(7), seed=1)
    loader = DataLoader(Noise(), batch_size=3, sampler=sampler, collate_fn=list, **options)
    loop = SimpleNamespace(dataloader=loader, dataloader_iterator=EagerIterator(loader))
    next(loop.dataloader_iterator.batches)
    runner = SimpleNamespace(train_loop=loop, cfg={}, seed=3)
    SeedEachIteration().before_train(runner)
    expected = [SeededBatch(batch, (0, 3, 0, 0, number)) for number, batch in enumerate([[0] * 3] * 2)]
    loaded = [next(loop.dataloader_iterator.batches) for _ in expected]
    assert [[sample[1:] for sample in batch] for batch in loaded] == [[draw() for _ in batch] for batch in expected]
    fresh = iter(InfiniteSampler(range(7), seed=3))
    assert [sample[0] for batch in loaded for sample in batch] == [next(fresh) for _ in range(6)]
