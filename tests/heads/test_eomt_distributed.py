"""Two processes train EoMT though one of them has nothing to find: losses and gradients are the mean of both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmdet.models.dense_heads import mask2former_head
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed, multiprocessing, nn

from tests.heads.test_eomt import detector, instances, losses_of, seg_batch, segmentor

STEPS = 2  # a second one hangs or fails where the first has left a gradient out


class Losses(nn.Module):
    """A model and its preprocessor, called as a whole."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = MODELS[name][0]().train()

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return sum(losses_of(self.model, batch).values())


def segmentor_batch(rank: int) -> dict[str, Any]:
    label = torch.full((40, 56), 255)
    if rank == 0:
        label[:20], label[20:, :30] = 1, 3
    return seg_batch(label)


def detector_batch(rank: int) -> dict[str, Any]:
    boxes = [(2, 2, 20, 30), (24, 8, 50, 40)] if rank == 0 else []
    images = [torch.randint(0, 255, (3, 40, 56), dtype=torch.uint8)]
    return dict(inputs=images, data_samples=[instances((40, 56), boxes, stuff=False)])


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], dict[str, Any]]]] = {
    'semantic': (segmentor, segmentor_batch),
    'instances': (lambda: detector(stuff=False), detector_batch),
}


def backward(model: nn.Module, name: str, rank: int) -> dict[str, Tensor]:
    """Seeded, the loss of a rank's batch and the gradients it leaves."""
    torch.manual_seed(rank)
    batch = MODELS[name][1](rank)
    model.zero_grad()
    loss = model(batch)
    loss.backward()
    named = {key.removeprefix('module.'): param.grad.clone() for key, param in model.named_parameters()}
    return {'loss': loss.detach(), **named}


def train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
    for name in MODELS:
        model = MMDistributedDataParallel(Losses(name), broadcast_buffers=False, find_unused_parameters=False)
        torch.save([backward(model, name, rank) for _ in range(STEPS)], f'{folder}/{name}_{rank}.pth')
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left of each model."""
    folder = tmp_path_factory.mktemp('two')
    multiprocessing.spawn(train_rank, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize('name', MODELS)
def test_a_process_without_ground_truth_trains_beside_one_that_has_some(name: str, trained: Path) -> None:
    counts: list[list[float]] = [[], []]  # masks of each rank, by prediction
    model = Losses(name)
    for rank, seen in enumerate(counts):
        with mock.patch.object(mask2former_head, 'reduce_mean', lambda x, seen=seen: seen.append(float(x)) or x):
            backward(model, name, rank)
    assert counts == [[2.0] * 3, [1.0] * 3]  # the host counts an image without masks as one
    with mock.patch.object(mask2former_head, 'reduce_mean', lambda x: torch.full_like(x, 1.5)):
        expected = [backward(model, name, rank) for rank in range(2)]

    for rank in range(2):
        for kept in torch.load(trained / f'{name}_{rank}.pth'):
            torch.testing.assert_close(kept['loss'], expected[rank]['loss'])
            for key in expected[0].keys() - {'loss'}:
                mean = (expected[0][key] + expected[1][key]) / 2
                torch.testing.assert_close(kept[key], mean, rtol=1e-4, atol=1e-5 * float(mean.abs().max()))
