"""On a GPU: values and gradients of every variant, no wait for it, DDP over NCCL, compilers, many windows.

``pytest -m gpu`` runs these and no others; without a GPU they are skipped. ``test_cuda_paths.py`` and
``tests/layers/test_kernels.py`` check what can be checked without one.
"""

import copy
from pathlib import Path

import pytest
import torch
from gpu import ERROR, MODELS, build_checked, errors_of, results
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from mmrope.layers import Attention, even_windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')]

DEVICE = 'cuda'


@pytest.mark.parametrize('dtype', ERROR)
@pytest.mark.parametrize('name', MODELS)
def test_values_and_gradients_are_those_of_float64_on_the_cpu(name, dtype) -> None:
    model, x = build_checked(name), torch.randn(3, 3, 61, 100)
    expected = results(copy.deepcopy(model).double(), x.double(), torch.float64)
    ours = results(model.to(DEVICE), x.to(DEVICE), dtype)
    assert max(errors_of(ours, expected).values()) <= ERROR[dtype]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', MODELS)
def test_a_training_step_waits_for_nothing(name, dtype: torch.dtype) -> None:
    model, x = MODELS[name]().to(DEVICE).train(), torch.randn(2, 3, 61, 100, device=DEVICE)
    for mode in ('default', 'default', 'error'):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
                maps = model(x)
            sum(out.float().mean() for out in maps).backward()
        finally:
            torch.cuda.set_sync_debug_mode('default')


def test_distributed_training_over_nccl_on_one_card(tmp_path: Path) -> None:
    model, x = MODELS['vit mixed']().to(DEVICE), torch.randn(2, 3, 61, 100, device=DEVICE)
    expected = results(copy.deepcopy(model), x, torch.float32)
    distributed.init_process_group('nccl', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        ours = results(DistributedDataParallel(model, device_ids=[0]), x, torch.float32)
    finally:
        distributed.destroy_process_group()
    assert max(errors_of(ours, expected).values()) <= ERROR[torch.float32]


@pytest.mark.parametrize('name', ['vit mixed', 'swin mixed rpb'])
def test_a_compiled_step_equals_an_eager_one(name: str) -> None:
    model, x = MODELS[name]().to(DEVICE), torch.randn(2, 3, 61, 100, device=DEVICE)
    twin = copy.deepcopy(model)
    ours = results(torch.compile(model, fullgraph=True), x, torch.float32)
    assert max(errors_of(ours, results(twin, x, torch.float32)).values()) <= ERROR[torch.float32]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_more_windows_than_one_launch_takes(dtype: torch.dtype) -> None:
    attn, windows = Attention(16, 1, 'mixed', 10.0).to(DEVICE), even_windows((264, 250), 1)  # 66,000
    x = torch.randn(1, 264 * 250, 16, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = attn(x, windows)
    expected = attn.proj(attn.qkv(x)[..., 32:])  # a window of one token returns its value
    grads = [torch.autograd.grad(y.float().square().sum(), x)[0] for y in (out, expected)]
    for ours, theirs in ((out.float(), expected), grads):
        assert (ours - theirs).norm() <= ERROR[dtype] * theirs.norm()
