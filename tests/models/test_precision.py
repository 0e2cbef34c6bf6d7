"""Every variant in float32, bfloat16 and float16 against float64, on grids of 14, 64 and 128 tokens a side."""

import copy
import itertools

import pytest
import torch

from mmrope import RoPESwin, RoPEViT

# Largest norm of the error over that of the maps: the tolerances of tests/conftest.py.
ERROR = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
VIT = dict(arch=dict(embed_dims=32, depth=3, num_heads=2), patch_size=2, img_size=28, layer_scale_init_value=0.5)
SWIN = dict(arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4)), patch_size=2, window_size=7, out_indices=(1,))
ROPES = ('mixed', 'axial', None)
MODELS = {
    **{
        f'vit {rope}{"+ape" * ape}': lambda rope=rope, ape=ape: RoPEViT(
            **VIT, rope=rope, ape=ape, window_size=14, global_attn_indexes=(1,), final_norm=True
        )
        for rope, ape in itertools.product(ROPES, (False, True))
    },
    **{
        f'swin {rope}{"+rpb" * rpb}': lambda rope=rope, rpb=rpb: RoPESwin(**SWIN, rope=rope, rpb=rpb)
        for rope, rpb in itertools.product(ROPES, (False, True))
    },
}


@pytest.mark.parametrize(
    'side', [14, pytest.param(64, marks=pytest.mark.slow), pytest.param(128, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('name', MODELS)
def test_precision(name: str, side: int) -> None:
    model = MODELS[name]().eval()
    for key, param in model.named_parameters():  # attention that is far from uniform
        if key.endswith('qkv.weight'):
            torch.nn.init.normal_(param, std=0.2)
    x = torch.randn(1, 3, 2 * side, 2 * side)
    errors = {}
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())[-1]
        for dtype, how in itertools.product(ERROR, ('autocast', 'cast')):
            twin, half = copy.deepcopy(model), dtype != torch.float32
            if half and how == 'cast':
                out = twin.to(dtype)(x.to(dtype))[-1]
            else:
                with torch.autocast('cpu', dtype if half else torch.bfloat16, enabled=half):
                    out = twin(x)[-1]
            errors[how, dtype] = ((out.double() - expected).norm() / expected.norm()).item()
    print(
        name, side, {f'{how} {dtype}'.replace('torch.', ''): f'{value:.1e}' for (how, dtype), value in errors.items()}
    )
    assert all(value < ERROR[dtype] for (_, dtype), value in errors.items()), errors
