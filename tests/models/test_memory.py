"""What a training step keeps for backward: as much a sample at any batch, and no more with a rotation than without.

On the CPU, and on fake tensors on CUDA, whose kernels keep other things. A forward pass of no images at all keeps what
belongs to no sample: copies of weights for autocast, angles, indexes.
"""

import itertools
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from fake_cuda import FusedAttention, autocast_of_a_gpu
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from mmrope import RoPESwin, RoPEViT
from tests.helpers.fake_gpu import needs_fake_gpu

# 23 x 33 tokens, and 12 x 17 in the second stage of a Swin, in windows of 5, which divide no side.
SIZE = (92, 132)
VIT = dict(arch=dict(embed_dims=64, depth=2, num_heads=4), patch_size=4, img_size=32)
SWIN = dict(arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4)), window_size=5, out_indices=(1,))
WINDOWS = dict(window_size=5, global_attn_indexes=(1,))
KINDS: dict[str, Callable[..., nn.Module]] = {
    'vit windows': lambda **kwargs: RoPEViT(**VIT, **WINDOWS, **kwargs),
    'vit global': lambda **kwargs: RoPEViT(**VIT, **kwargs),
    'vit cls token ape': lambda **kwargs: RoPEViT(**VIT, with_cls_token=True, ape=True, **kwargs),
    'vit without LayerScale': lambda **kwargs: RoPEViT(**VIT, **WINDOWS, layer_scale_init_value=None, **kwargs),
    'swin': lambda **kwargs: RoPESwin(**SWIN, **kwargs),
    'swin rpb': lambda **kwargs: RoPESwin(**SWIN, rpb=True, **kwargs),
}
# KiB that a sample keeps on the CPU in float32 and in bfloat16, then on CUDA: a copy of anything would show.
MOST = {
    'vit windows': (7211, 4009, 7217, 3914),
    'vit global': (7021, 3914, 7022, 3914),
    'vit cls token ape': (7030, 3919, 7031, 3919),
    'vit without LayerScale': (6452, 3630, 6458, 3535),
    'swin': (5510, 2784, 5524, 3054),
    'swin rpb': (6467, 3453, 6041, 3473),
}


def kept(model: nn.Module, x: Tensor, dtype: torch.dtype) -> int:
    """Bytes of the storages that a forward pass saves, each counted once, without the model's own."""
    own = {tensor.untyped_storage()._cdata for tensor in itertools.chain(model.parameters(), model.buffers())}
    storages, alive = {}, []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    half = dtype != torch.float32
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            outs = model(x)
    assert all(out.requires_grad for out in outs)
    return sum(storages.values())


def kept_by_batch(build: Callable[[], nn.Module], device: str, dtype: torch.dtype) -> dict[int, int]:
    """Bytes kept for each batch, less those of a batch of 0."""
    with ExitStack() as stack:
        if device == 'cuda':
            for context in (FakeTensorMode(), FusedAttention(), autocast_of_a_gpu()):
                stack.enter_context(context)
        stack.enter_context(torch.device(device))
        model = build().train()
        counts = [kept(model, torch.ones(batch, 3, *SIZE), dtype) for batch in (0, 1, 4)]
    return {batch: count - counts[0] for batch, count in zip((1, 4), counts[1:])}


@pytest.mark.parametrize(
    'device, dtype',
    [
        ('cpu', torch.float32),
        pytest.param('cuda', torch.bfloat16, marks=needs_fake_gpu),
        pytest.param('cpu', torch.bfloat16, marks=pytest.mark.slow),
        pytest.param('cuda', torch.float32, marks=[needs_fake_gpu, pytest.mark.slow]),
    ],
)
@pytest.mark.parametrize('kind', KINDS)
def test_a_sample_keeps_as_much_at_any_batch_and_with_any_rotation(kind, device: str, dtype: torch.dtype) -> None:
    bytes_ = {
        rope: kept_by_batch(lambda rope=rope: KINDS[kind](rope=rope), device, dtype)
        for rope in (None, 'axial', 'mixed')
    }
    column = 2 * (device == 'cuda') + (dtype == torch.bfloat16)
    assert bytes_[None][1] <= 1024 * MOST[kind][column]
    for of_rope in bytes_.values():
        assert 0 < of_rope[4] <= 1.02 * 4 * of_rope[1]
    # The CPU's attention with a bias that learns keeps scaled queries and keys; the gradient of mixed frequencies keeps
    # them as they are. CUDA's keeps them as they are, too.
    rest = ('axial',) if (kind, device) == ('swin rpb', 'cpu') else ('axial', 'mixed')
    assert all(bytes_[rope] == bytes_[None] for rope in rest)
