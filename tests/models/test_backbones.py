"""Claims about both backbones: tracing, the meta device, float32 streams, blocks that are not run, maps of a block."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmrope import RoPESwin, RoPEViT

VIT = dict(arch=dict(embed_dims=32, depth=4, num_heads=2), patch_size=4)
SWIN = dict(arch=dict(embed_dims=16, depths=(2, 2, 2), num_heads=(2, 2, 2)), window_size=3, out_indices=(1, 2))
WINDOWS = dict(window_size=4, global_attn_indexes=(1,))
MODELS: dict[str, Callable[..., nn.Module]] = {
    'vit global': lambda **kwargs: RoPEViT(**VIT, **kwargs),
    'vit windows': lambda **kwargs: RoPEViT(**VIT, **WINDOWS, **kwargs),
    'vit axial ape': lambda **kwargs: RoPEViT(**VIT, **WINDOWS, rope='axial', ape=True, img_size=32, **kwargs),
    'swin': lambda **kwargs: RoPESwin(**{**SWIN, **kwargs}),
    'swin rpb': lambda **kwargs: RoPESwin(**{**SWIN, **kwargs}, rpb=True),
}


@pytest.mark.parametrize('name', MODELS)
def test_jit_trace_gives_the_same_maps(name) -> None:
    model, x = MODELS[name](out_indices=(1, 2)).eval(), torch.randn(2, 3, 61, 100)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(model, x, check_trace=False)
    for ours, theirs in zip(traced(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', MODELS)
def test_shapes_and_flops_are_known_without_memory(name, training: bool) -> None:
    model = MODELS[name](drop_path_rate=0.1)
    counts = []
    for device in ('cpu', 'meta'):
        x = torch.empty(2, 3, 61, 100, device=device)
        with FlopCounterMode(display=False) as counter:
            maps = model.to(device).train(training)(x)
        products = (ops for op, ops in counter.get_flop_counts()['Global'].items() if 'addmm' in str(op))
        counts.append([sum(products), *(x.shape for x in maps)])
    assert counts[0] == counts[1]


@pytest.mark.parametrize('layer_scale_init_value', [None, 0.5])
def test_the_stream_of_a_vit_is_float32_under_autocast(layer_scale_init_value: float | None) -> None:
    model = RoPEViT(**VIT, **WINDOWS, layer_scale_init_value=layer_scale_init_value)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: seen.extend((args[0].dtype, out.dtype)))
    with torch.autocast('cpu', torch.bfloat16):
        model(torch.randn(1, 3, 32, 48))
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize('kind', ['vit windows', 'swin'])
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_layers_after_the_last_output_are_neither_run_nor_trained(kind: str, frozen_stages: int) -> None:
    whole = MODELS[kind](out_indices=(1, 2), frozen_stages=frozen_stages)
    part = MODELS[kind](out_indices=(1,), frozen_stages=frozen_stages)
    part.load_state_dict(whole.state_dict(), strict=False)
    whole.eval(), part.eval()
    after = (part.blocks if kind == 'vit windows' else part.layers)[2:]
    for module in after.modules():
        module.register_forward_hook(lambda *args: pytest.fail('run'))
    x = torch.randn(2, 3, 61, 100)
    assert torch.equal(part(x)[0], whole(x)[0])
    part.train()(x)[0].square().mean().backward()
    assert not any(param.requires_grad for param in after.parameters())
    assert all(param.grad is not None for param in part.parameters() if param.requires_grad)


@pytest.mark.parametrize('name', MODELS)
def test_to_grid_puts_the_tokens_of_a_block_in_their_places(name) -> None:
    model, size = MODELS[name](), (61, 100)
    tokens, is_swin = [], name.startswith('swin')
    blocks = model.layers[1].blocks if is_swin else model.blocks[2:]
    for block in blocks:
        block.register_forward_pre_hook(lambda module, args: tokens.append(args[0]))
        block.register_forward_hook(lambda module, args, out: args[0])  # as if it were not there
    if not is_swin:
        model.blocks[1].register_forward_hook(lambda module, args, out: tokens.append(out))
        out = RoPEViT.forward(model, torch.randn(2, 3, *size))[0]
        assert all(torch.equal(model.to_grid(x, size), out) for x in tokens)
    else:
        model.layers[0].downsample.register_forward_hook(lambda module, args, out: tokens.insert(0, out))
        model(torch.randn(2, 3, *size))
        expected, *rest = tokens
        for block, x in enumerate(rest):
            assert torch.equal(model.to_grid(x, size, stage=1, block=block), expected.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r'x .*\(60, 100\).*\(2, 7, 32\)'):
        model.to_grid(torch.randn(2, 7, 32), (60, 100), *((1, 0) if is_swin else ()))
