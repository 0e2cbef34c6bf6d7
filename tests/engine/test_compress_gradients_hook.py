"""Gradients between processes in half precision."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import distributed, nn

from mmrope.registry import HOOKS


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def gradient(model: nn.Module, hook: bool) -> torch.Tensor:
    if hook:
        HOOKS.build(dict(type='mmrope.CompressGradientsHook')).before_train(SimpleNamespace(model=model))
    model(torch.tensor([[1.0, 1 + 2**-15]])).sum().backward()
    return next(model.parameters()).grad


@pytest.mark.parametrize('hook', [False, True])
def test_gradients_of_processes_are_exchanged_in_half_precision(process_group: None, hook: bool) -> None:
    expected = [1.0, 1.0 if hook else 1 + 2**-15]  # the step of float16 at 1 is 2 ** -10
    assert gradient(MMDistributedDataParallel(nn.Linear(2, 1)), hook).tolist() == [expected]


def test_a_single_process_has_nothing_to_send() -> None:
    assert gradient(nn.Linear(2, 1), hook=True).tolist() == [[1.0, 1 + 2**-15]]
