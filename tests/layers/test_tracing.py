"""Indexes that are kept for a size: for which device and mode, how many, and good for training."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from mmrope.layers import tracing
from mmrope.layers.tracing import once_per_size


def count(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, device=device)


def count_down(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, device=device).flip(0)


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, '_kept', type(tracing._kept)())


def test_a_size_is_made_once_for_each_function_and_device() -> None:
    cpu, meta = torch.empty(1), torch.empty(1, device='meta')
    first = once_per_size(count, 5, like=cpu)
    assert once_per_size(count, 5, like=cpu) is first and first.tolist() == [0, 1, 2, 3, 4]
    assert once_per_size(count, 4, like=cpu).tolist() == [0, 1, 2, 3]
    assert once_per_size(count_down, 5, like=cpu).tolist() == [4, 3, 2, 1, 0]
    assert once_per_size(count, 5, like=meta).is_meta
    assert once_per_size(count, 5, like=cpu) is first


def test_fake_tensors_are_kept_for_their_mode_alone() -> None:
    real = torch.empty(1)
    made = []
    for _ in range(2):
        with FakeTensorMode() as mode:
            fake = torch.empty(1)
            made.append(once_per_size(count, 5, like=fake))
            assert made[-1].fake_mode is mode and once_per_size(count, 5, like=fake) is made[-1]
    assert type(once_per_size(count, 5, like=real)) is Tensor
    with FakeTensorMode(allow_non_fake_inputs=True):  # a real tensor under the mode: what is made is fake
        once_per_size(count, 6, like=real)
    assert type(once_per_size(count, 6, like=real)) is Tensor


def test_indexes_made_in_inference_serve_training() -> None:
    with torch.inference_mode():
        made = once_per_size(count, 5, like=torch.empty(1))
    assert not made.is_inference() and once_per_size(count, 5, like=torch.empty(1)) is made


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, 'KEPT', 3)
    like = torch.empty(1)
    first, second, _ = (once_per_size(count, size, like=like) for size in (1, 2, 3))
    assert once_per_size(count, 1, like=like) is first  # used again
    last = once_per_size(count, 4, like=like)
    assert len(tracing._kept) == 3
    assert once_per_size(count, 1, like=like) is first and once_per_size(count, 4, like=like) is last
    assert once_per_size(count, 2, like=like) is not second


def test_threads_share_the_kept_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, 'KEPT', 3)
    sizes = list(range(10)) * 20
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda size: once_per_size(count, size, like=torch.empty(1)), sizes))
    assert [len(x) for x in made] == sizes and len(tracing._kept) == 3
