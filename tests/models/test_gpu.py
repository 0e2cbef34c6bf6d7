"""On a GPU: values and gradients of every variant, no wait for it, DDP over NCCL, compilers, many windows.

``pytest -m gpu`` runs these and no others; without a GPU they are skipped. ``test_cuda_paths.py`` and
``tests/layers/test_kernels.py`` check what can be checked without one.
"""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmrope import RoPESwin, RoPEViT
from mmrope.layers import Attention, even_windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')]

DEVICE = 'cuda'
# Largest norm of the error over that of the maps or gradients, beside float64 on the CPU.
ERROR = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
VIT = dict(arch=dict(embed_dims=64, depth=3, num_heads=2), patch_size=4, layer_scale_init_value=0.5)
SWIN = dict(
    arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4)), window_size=4, out_indices=(0, 1), drop_path_rate=0.0
)
WINDOWS = dict(window_size=5, global_attn_indexes=(1,))
MODELS: dict[str, Callable[[], nn.Module]] = {
    **{f'vit {rope}': lambda rope=rope: RoPEViT(**VIT, **WINDOWS, rope=rope) for rope in ('mixed', 'axial', None)},
    'vit global ape': lambda: RoPEViT(**VIT, ape=True, img_size=32),
    'vit cls token': lambda: RoPEViT(**VIT, with_cls_token=True),
    'vit checkpointed': lambda: RoPEViT(**VIT, **WINDOWS, with_cp=True),
    'vit without LayerScale': lambda: RoPEViT(**{**VIT, 'layer_scale_init_value': None}, **WINDOWS),
    **{
        f'swin {rope}{" rpb" * rpb}': lambda rope=rope, rpb=rpb: RoPESwin(**SWIN, rope=rope, rpb=rpb)
        for rope, rpb in itertools.product(('mixed', 'axial', None), (False, True))
    },
}


def results(model: nn.Module, x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """All maps and all gradients, each as one vector, in float64 on the CPU."""
    enabled = dtype in (torch.float16, torch.bfloat16)
    with torch.autocast(x.device.type, dtype if enabled else torch.bfloat16, enabled=enabled):
        maps = model(x)
    generator = torch.Generator().manual_seed(1)
    sum((out.float() * torch.randn(out.shape, generator=generator).to(out.device)).sum() for out in maps).backward()
    grads = [param.grad for param in model.parameters() if param.grad is not None]
    return [torch.cat([x.detach().double().cpu().flatten() for x in xs]) for xs in (maps, grads)]


@pytest.mark.parametrize('dtype', ERROR)
@pytest.mark.parametrize('name', MODELS)
def test_values_and_gradients_are_those_of_float64_on_the_cpu(name, dtype):
    model = MODELS[name]().train()
    for key, param in model.named_parameters():  # attention that is far from uniform
        if key.endswith('qkv.weight'):
            nn.init.normal_(param, std=0.2)
    x = torch.randn(3, 3, 61, 100)
    expected = results(copy.deepcopy(model).double(), x.double(), torch.float64)
    ours = results(model.to(DEVICE), x.to(DEVICE), dtype)
    for mine, exact in zip(ours, expected, strict=True):
        assert (mine - exact).norm() <= ERROR[dtype] * exact.norm()


@pytest.mark.parametrize('name', MODELS)
def test_a_training_step_waits_for_nothing(name):
    model, x = MODELS[name]().to(DEVICE).train(), torch.randn(2, 3, 61, 100, device=DEVICE)
    for mode in ('default', 'default', 'error'):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast(DEVICE, torch.bfloat16):
                maps = model(x)
            sum(out.float().mean() for out in maps).backward()
        finally:
            torch.cuda.set_sync_debug_mode('default')


def test_distributed_training_over_nccl_on_one_card(tmp_path: Path):
    model, x = MODELS['vit mixed']().to(DEVICE), torch.randn(2, 3, 61, 100, device=DEVICE)
    expected = results(copy.deepcopy(model), x, torch.float32)
    distributed.init_process_group('nccl', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        ours = results(DistributedDataParallel(model, device_ids=[0]), x, torch.float32)
    finally:
        distributed.destroy_process_group()
    for mine, theirs in zip(ours, expected, strict=True):
        assert (mine - theirs).norm() <= ERROR[torch.float32] * theirs.norm()


@pytest.mark.parametrize('name', ['vit mixed', 'swin mixed rpb'])
def test_a_compiled_step_equals_an_eager_one(name):
    model, x = MODELS[name]().to(DEVICE), torch.randn(2, 3, 61, 100, device=DEVICE)
    twin = copy.deepcopy(model)
    for ours, theirs in zip(
        results(torch.compile(model, fullgraph=True), x, torch.float32), results(twin, x, torch.float32), strict=True
    ):
        assert (ours - theirs).norm() <= ERROR[torch.float32] * theirs.norm()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_more_windows_than_one_launch_takes(dtype):
    attn, windows = Attention(16, 1, 'mixed', 10.0).to(DEVICE), even_windows((264, 250), 1)  # 66,000
    x = torch.randn(1, 264 * 250, 16, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = attn(x, windows)
    out.sum().backward()
    with torch.no_grad():  # a window of one token returns its value
        expected = attn.proj(attn.qkv(x)[..., 32:])
    assert (out.float() - expected).norm() <= ERROR[dtype] * expected.norm()
    assert x.grad.isfinite().all()
