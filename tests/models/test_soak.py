"""Long trainings at random image sizes: memory stays flat."""

import ctypes
import gc
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from mmrope import RoPESwin, RoPEViT

QUARTERS = 4
LARGEST = 160
MODELS = {
    'vit_mixed': lambda: RoPEViT(VIT, window_size=3, global_attn_indexes=(1,)),
    'vit_axial': lambda: RoPEViT(VIT, rope='axial', window_size=3, global_attn_indexes=(1,)),
    'swin_mixed_rpb': lambda: RoPESwin(SWIN, rpb=True, out_indices=(1,)),
}
VIT = dict(embed_dims=32, depth=2, num_heads=4)
SWIN = dict(embed_dims=16, depths=(2, 2), num_heads=(2, 4))


def resident() -> float:
    """MiB that this process holds, after what is free has been given back."""
    gc.collect()
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 2**20


def tensors() -> int:
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


def step(model: nn.Module, optimizer: torch.optim.Optimizer, size: tuple[int, int], train: bool) -> None:
    """Train on an image, or look at it as a validation would."""
    model.train(train)
    with torch.set_grad_enabled(train):
        loss = model(torch.randn(1, 3, *size))[-1].square().mean()
    if train:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='the memory of a process is read from /proc')
@pytest.mark.parametrize('iterations', [80, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'name', [name if name != 'vit_axial' else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_memory_over_many_image_sizes(name: str, iterations: int) -> None:
    """Each quarter has the same sizes, in an order of its own; every tenth image is only looked at."""
    rng = random.Random(0)
    sizes = [(rng.randint(1, LARGEST), rng.randint(1, LARGEST)) for _ in range(iterations // QUARTERS)]
    model = MODELS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    curve = []
    for _ in range(QUARTERS):
        for index, size in enumerate(rng.sample(sizes, len(sizes))):
            step(model, optimizer, size, train=index % 10 != 9)
        curve.append((resident(), tensors()))
    figures = ', '.join(f'{mib:.1f} MiB {count} tensors' for mib, count in curve)
    print(f'\n{name}, {len(set(sizes))} sizes, by quarters: {figures}')
    memory, alive = zip(*curve, strict=True)
    assert memory[-1] - memory[0] < 8
    # The first quarter only looks at some sizes. What tests before this one left behind may go meanwhile.
    assert alive[-1] <= max(alive[:2])
