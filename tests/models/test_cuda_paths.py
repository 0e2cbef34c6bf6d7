"""CUDA's code paths on fake tensors: no tensor on the CPU, no wait for the GPU, and what a step launches and moves."""

import warnings
from collections.abc import Callable

import pytest
import torch
from fake_cuda import Watch, run
from functorch.compile import aot_module, nop
from gpu_count import ROWS, count
from torch import nn
from torch._subclasses import FakeTensorMode

from mmrope import DINOv3ViT, RoPESwin, RoPEViT, SimpleFeaturePyramid
from mmrope.layers import tracing
from tests.helpers.fake_gpu import needs_fake_gpu

pytest.importorskip('triton', reason='Triton comes with PyTorch for Linux')
pytestmark = needs_fake_gpu

VIT = dict(window_size=5, global_attn_indexes=(1,), out_indices=(1, 2, 5))
SWIN = dict(arch=dict(embed_dims=32, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8)))
# Few blocks where they are checkpointed: called node by node, each tensor that a block saved computes it again.
FEW = dict(arch=dict(embed_dims=32, depth=2, num_heads=2), window_size=5, global_attn_indexes=(1,))
FEW_SWIN = dict(arch=dict(embed_dims=32, depths=(2,), num_heads=(1,)), out_indices=(0,))


class WithNeck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck = RoPEViT('tiny', **{**VIT, 'out_indices': (5,)}), SimpleFeaturePyramid(128, 32)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.neck(self.backbone(x))


MODELS = {
    'vit mixed': lambda: RoPEViT('tiny', **VIT, drop_path_rate=0.3),
    'vit axial ape': lambda: RoPEViT('tiny', **VIT, rope='axial', ape=True),
    'vit none': lambda: RoPEViT('tiny', **VIT, rope=None),
    'vit cls token': lambda: RoPEViT('tiny', with_cls_token=True, out_type='cls_token', final_norm=True),
    'vit windows with prefix tokens': lambda: RoPEViT('tiny', **VIT, with_cls_token=True, num_registers=2),
    'vit of another family': lambda: DINOv3ViT(**FEW, mlp='swiglu', mlp_norm=True),
    'vit checkpointed': lambda: RoPEViT(**FEW, with_cp=True),
    'vit without LayerScale': lambda: RoPEViT('tiny', **VIT, layer_scale_init_value=None, frozen_stages=3),
    'vit with a neck': WithNeck,
    'swin mixed': lambda: RoPESwin(**SWIN),
    'swin rpb': lambda: RoPESwin(**SWIN, rpb=True),
    'swin checkpointed': lambda: RoPESwin(**FEW_SWIN, rope=None, with_cp=True, frozen_stages=0),
}


EACH_DTYPE = ('vit mixed', 'vit windows with prefix tokens', 'swin mixed')  # the others run in bfloat16 by default

# Operators that make indexes and positions, which a size of image does once.
INDEXING = {torch.ops.aten.arange.default, torch.ops.aten.arange.start, torch.ops.aten.cumsum.default}


@pytest.mark.parametrize(
    'name, dtype',
    [
        pytest.param(name, dtype, id=f'{name}-{dtype}', marks=() if dtype or name in EACH_DTYPE else pytest.mark.slow)
        for name in MODELS
        for dtype in (torch.bfloat16, None)
    ],
)
def test_a_step_stays_on_the_gpu_waits_for_nothing_and_makes_no_index(name: str, dtype: torch.dtype | None) -> None:
    operators = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        model, watch = run(MODELS[name], (2, 3, 117, 203), dtype, record=lambda func, *_: operators.add(func))
    assert not watch.crossings
    assert not INDEXING & operators
    learning = {name: param.grad for name, param in model.named_parameters() if param.requires_grad}
    assert all(grad is not None and grad.is_cuda for grad in learning.values())
    assert not [warning for warning in caught if issubclass(warning.category, (UserWarning, RuntimeWarning))]


# Launches and estimated time of a training step in bfloat16, mixed against rope=None; launches of all that there are.
LIMITS = {'vit_windows': 1_000, 'vit_global': 1_000, 'swin': 1_400, 'swin_batch_2': 1_400}


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=() if name in ('vit_windows', 'swin_batch_2') else pytest.mark.slow) for name in LIMITS],
)
def test_the_rotation_takes_few_launches_and_little_time(name) -> None:
    build, shape = ROWS[name]
    without, mixed = (count(lambda rope=rope: build(rope=rope), shape) for rope in (None, 'mixed'))
    assert mixed.launches <= min(LIMITS[name], 1.15 * without.launches)
    assert mixed.seconds <= 1.05 * without.seconds
    assert {'mmrope.rotate.default', 'mmrope.unrotate.default'} <= set(mixed.by_operator)


@pytest.mark.parametrize('name', ['vit mixed', 'swin rpb'])
def test_indexes_are_made_once_a_size_and_not_a_block(name: str) -> None:
    """On the CPU."""
    model, x = MODELS[name](), torch.randn(2, 3, 68, 100)
    tracing._kept.clear()
    made = []
    for _ in range(2):
        operators = []
        with Watch(lambda func, *_, operators=operators: operators.append(func)):
            model(x)[-1].sum().backward()
        made.append(sum(operator in INDEXING for operator in operators))
    assert made[0] > 0 and made[1] == 0


@pytest.mark.parametrize('build', [lambda: RoPEViT(**FEW), lambda: RoPESwin(**FEW_SWIN)], ids=['vit', 'swin'])
def test_fake_and_functional_tensors_leave_nothing_behind(build: Callable) -> None:
    model, x = build().eval(), torch.randn(1, 3, 64, 97)
    with torch.no_grad():
        expected = model(x)
        tracing._kept.clear()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            model(mode.from_tensor(x))
        for ours, theirs in zip(aot_module(model, nop)(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert all(map(torch.equal, model(x), expected))
