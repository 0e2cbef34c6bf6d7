import copy
import itertools
import re
from collections.abc import Callable

import pytest
import timm
import torch

from mmrope import RoPESwin
from tests.helpers.classic_swin import classic_swin
from tests.helpers.compiler import needs_compiler

VARIANTS = [dict(rope=rope, rpb=rpb) for rope, rpb in itertools.product(('mixed', 'axial', None), (False, True))]
variants = pytest.mark.parametrize('variant', VARIANTS, ids=lambda v: f'{v["rope"]}{"+rpb" * v["rpb"]}')


def tiny(**kwargs) -> RoPESwin:
    """A model small enough for CPU tests, its position terms large enough to matter."""
    arch = dict(embed_dims=16, depths=(2, 3, 2), num_heads=(2, 2, 4))
    model = RoPESwin(**{'arch': arch, 'window_size': 3, 'out_indices': (0, 1, 2), 'drop_path_rate': 0.0, **kwargs})
    for name, param in model.named_parameters():
        if name.endswith(('qkv.weight', 'qkv.bias', 'relative_position_bias_table')):
            torch.nn.init.normal_(param, std=0.2)
    return model


@variants
@pytest.mark.parametrize('size', [(96, 96), (61, 100), (8, 90), (1, 1)])
def test_maps_have_the_promised_shape(variant, size: tuple[int, int]) -> None:
    outs = tiny(**variant)(torch.randn(2, 3, *size))
    for i, out in enumerate(outs):
        assert out.shape == (2, 16 * 2**i, -(-size[0] // (4 * 2**i)), -(-size[1] // (4 * 2**i)))
        assert out.is_contiguous()
    assert len(outs) == 3


@variants
@pytest.mark.parametrize('size', [(96, 144), (192, 96), (48, 48)])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_shifted_windows_equal_rolled_and_masked_ones(
    variant, size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    """On grids that the window divides; the last stage of the smallest image is one window."""
    model, x = tiny(**variant).to(dtype), torch.randn(2, 3, *size, dtype=dtype)
    for ours, theirs in zip(model(x), classic_swin(model, x, window_size=3, roll=True), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance)


@variants
@pytest.mark.parametrize('size', [(61, 100), (130, 33), (96, 144), (5, 70), (3, 2)])
@pytest.mark.parametrize('window_size', [3, 4, 7])
def test_on_any_grid_tokens_attend_within_their_window_and_to_nothing_else(
    variant, size: tuple[int, int], window_size: int, close: Callable[..., None]
) -> None:
    model, x = tiny(**variant, window_size=window_size).double(), torch.randn(2, 3, *size, dtype=torch.float64)
    for ours, theirs in zip(model(x), classic_swin(model, x, window_size), strict=True):
        close(ours, theirs)


def to_mmdet(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under MMDetection's names, which take the four tokens of a merged one channel by channel."""
    theirs = {}
    for key, value in state.items():
        if 'downsample' in key:
            columns = value.unflatten(-1, (2, 2, -1))  # (..., column, row, C)
            value = columns.movedim(-1, -3).transpose(-1, -2).flatten(-3)  # (..., C * row * column)
        for ours, name in {
            'layers.': 'stages.',
            'patch_embed.proj': 'patch_embed.projection',
            'attn.rpb.': 'attn.w_msa.',
            'attn.qkv': 'attn.w_msa.qkv',
            'attn.proj': 'attn.w_msa.proj',
            'mlp.fc1': 'ffn.layers.0.0',
            'mlp.fc2': 'ffn.layers.1',
        }.items():
            key = key.replace(ours, name)
        theirs[key] = value
    return theirs


@pytest.mark.parametrize('size', [(448, 448), (448, 672)])
def test_bias_only_variant_equals_mmdets_swin(size: tuple[int, int], close: Callable[..., None]) -> None:
    SwinTransformer = pytest.importorskip('mmdet.models.backbones').SwinTransformer  # noqa: N806
    arch = dict(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(2, 4, 8, 16))
    model = tiny(arch=arch, window_size=7, rope=None, rpb=True, out_indices=(0, 1, 2, 3)).eval()
    theirs = SwinTransformer(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(2, 4, 8, 16), window_size=7)
    missing, unexpected = theirs.load_state_dict(to_mmdet(model.state_dict()), strict=False)
    assert not unexpected and all('relative_position_index' in key for key in missing)
    SwinTransformer.train(theirs, False)
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(model.double()(x), theirs.double()(x), strict=True):
            close(a, b)


@variants
@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(variant, with_cp: bool) -> None:
    model = tiny(**variant, with_cp=with_cp)
    sum(out.square().mul(torch.randn_like(out)).mean() for out in model(torch.randn(2, 3, 60, 100))).backward()
    missing = [name for name, param in model.named_parameters() if param.grad is None or not param.grad.abs().sum() > 0]
    assert not missing


def test_checkpointing_changes_neither_outputs_nor_gradients() -> None:
    model = tiny(rpb=True)
    twin = copy.deepcopy(model)
    twin.with_cp = True
    x = torch.randn(2, 3, 40, 72)
    for m in (model, twin):
        m(x)[-1].square().sum().backward()
    for ours, theirs in zip(twin.parameters(), model.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)


@variants
def test_transposed_image_with_swapped_axes_is_the_transposed_map(variant) -> None:
    model = tiny(**variant).double()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.patch_embed.proj.weight.copy_(model.patch_embed.proj.weight.transpose(2, 3))
        for ours, stage in zip(model.layers, twin.layers):
            for block in stage.blocks:
                if block.attn.rope is not None:
                    block.attn.rope.freqs.copy_(block.attn.rope.freqs.flip(0).clone())
                if block.attn.rpb is not None:
                    table = block.attn.rpb.relative_position_bias_table
                    table.copy_(table.clone().unflatten(0, (5, 5)).transpose(0, 1).flatten(0, 1))
            if stage.downsample is not None:
                swap = lambda weight: weight.unflatten(-1, (2, 2, -1)).transpose(-3, -2).flatten(-3)  # noqa: E731
                stage.downsample.reduction.weight.copy_(swap(ours.downsample.reduction.weight))
                stage.downsample.norm.weight.copy_(swap(ours.downsample.norm.weight))
                stage.downsample.norm.bias.copy_(swap(ours.downsample.norm.bias))
    x = torch.randn(1, 3, 56, 88).double()
    for ours, theirs in zip(model(x), twin(x.transpose(2, 3))):
        torch.testing.assert_close(theirs.transpose(2, 3), ours, rtol=0, atol=1e-9)


def test_images_of_a_batch_do_not_mix() -> None:
    model, x = tiny(rpb=True), torch.randn(3, 3, 61, 100)
    torch.testing.assert_close(model(x)[2][1:2], model(x[1:2])[2], rtol=0, atol=1e-5)


def test_padding_is_at_the_bottom_and_right() -> None:
    model, x = tiny(), torch.randn(1, 3, 61, 99)
    padded = torch.zeros(1, 3, 64, 100)
    padded[..., :61, :99] = x
    assert torch.equal(model(x)[0], model(padded)[0])


def test_larger_windows_keep_the_frequencies_and_resize_the_bias(close: Callable[..., None]) -> None:
    model = tiny(rpb=True)
    larger = tiny(rpb=True, window_size=5)
    assert not any(larger.load_state_dict(model.state_dict()))
    for key, value in larger.state_dict().items():
        old = model.state_dict()[key]
        if key.endswith('relative_position_bias_table'):
            assert value.shape == (81, old.shape[1])
            maps = old.T[None].unflatten(2, (5, 5))
            theirs = torch.nn.functional.interpolate(maps, size=(9, 9), mode='bicubic', align_corners=False)
            close(value, theirs[0].flatten(1).T)
        else:
            assert torch.equal(value, old)


def test_malformed_bias_table_is_named() -> None:
    state = tiny(rpb=True).state_dict()
    key = 'layers.0.blocks.0.attn.rpb.relative_position_bias_table'
    with pytest.raises(RuntimeError, match=rf'{key}.*\[24, 2\]'):
        tiny(rpb=True).load_state_dict({**state, key: state[key][1:]})


@variants
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('how', ['autocast', 'cast'])
def test_half_precision_stays_close_to_float32(variant, dtype: torch.dtype, how: str) -> None:
    arch = dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4))
    model = RoPESwin(arch, window_size=5, **variant, out_indices=(1,)).eval()
    x = torch.randn(1, 3, 104, 120)
    with torch.no_grad():
        expected = model(x)[0]
        if how == 'autocast':
            with torch.autocast('cpu', dtype):
                ours = model(x)[0]
        else:
            ours = model.to(dtype)(x.to(dtype))[0]
    assert (ours.float() - expected).norm() / expected.norm() < {torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_training_step_under_autocast_is_finite(dtype: torch.dtype) -> None:
    model = tiny(rpb=True)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        loss = sum(out.float().square().mean() for out in model(torch.randn(2, 3, 61, 100)))
    loss.backward()
    assert all(param.grad.isfinite().all() for param in model.parameters())


def test_state_dict_keys() -> None:
    block = (
        'norm1.weight norm1.bias attn.qkv.weight attn.qkv.bias attn.proj.weight attn.proj.bias '
        'norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias'
    ).split()
    keys = [
        f'layers.{i}.blocks.{j}.{name}' for i, depth in enumerate((2, 3, 2)) for j in range(depth) for name in block
    ]
    keys += [
        f'layers.{i}.downsample.{name}' for i in (0, 1) for name in ('norm.weight', 'norm.bias', 'reduction.weight')
    ]
    keys += [f'patch_embed.{part}.{name}' for part in ('proj', 'norm') for name in ('weight', 'bias')]
    keys += [f'norm{i}.{name}' for i in range(3) for name in ('weight', 'bias')]
    assert sorted(tiny(rope='axial').state_dict()) == sorted(tiny(rope=None).state_dict()) == sorted(keys)
    attn = [f'layers.{i}.blocks.{j}.attn.' for i, depth in enumerate((2, 3, 2)) for j in range(depth)]
    keys += [f'{name}rope.freqs' for name in attn] + [f'{name}rpb.relative_position_bias_table' for name in attn]
    assert sorted(tiny(rpb=True).state_dict()) == sorted(keys)


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
def test_sizes_are_those_of_swin(arch: str) -> None:
    with torch.device('meta'):
        ours = RoPESwin(arch, rope=None, rpb=True, out_indices=(3,))
        theirs = timm.create_model(f'swin_{arch}_patch4_window7_224', num_classes=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_outputs_are_those_asked_for() -> None:
    model = tiny()
    one = tiny(out_indices=(-2,))
    one.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 61, 100)
    (out,) = one(x)
    assert torch.equal(out, model(x)[1])
    assert [name for name, _ in one.named_children() if name.startswith('norm')] == ['norm1']


def test_averages_are_those_of_the_normalised_maps(close: Callable[..., None]) -> None:
    model = tiny().eval()
    twin = tiny(out_type='avg_featmap').eval()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 61, 100)
    for ours, theirs in zip(twin(x), model(x), strict=True):
        close(ours, theirs.mean((2, 3)))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3])
def test_frozen_stages_learn_nothing_and_stay_in_eval(frozen_stages: int) -> None:
    model = tiny(frozen_stages=frozen_stages, rpb=True, drop_path_rate=0.5)
    model.train()
    learning = {name for name, param in model.named_parameters() if param.requires_grad}
    assert any(name.startswith('patch_embed') for name in learning) == (frozen_stages < 0)
    for i, stage in enumerate(model.layers):
        for prefix in (f'layers.{i}.', f'norm{i}.'):
            assert any(name.startswith(prefix) for name in learning) == (i >= frozen_stages)
        assert stage.training == (i >= frozen_stages) and stage.blocks[0].attn.rope.training == stage.training


def test_frozen_stages_train_with_checkpointing() -> None:
    model = tiny(frozen_stages=1, with_cp=True).train()
    model(torch.randn(1, 3, 40, 40))[-1].sum().backward()
    assert model.layers[1].blocks[0].mlp.fc1.weight.grad is not None
    assert model.layers[0].blocks[0].mlp.fc1.weight.grad is None


def test_train_and_eval_return_self() -> None:
    model = tiny()
    assert model.train() is model and model.eval() is model


def test_layer_depth_counts_from_the_embedding_to_the_heads() -> None:
    model = tiny(rpb=True)  # depths 2, 3, 2
    for name in ('patch_embed.proj.bias', 'patch_embed.norm.weight'):
        assert model.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (0, 9)
    depth = 0
    for i, blocks in enumerate((2, 3, 2)):
        for j in range(blocks):
            depth += 1
            assert model.get_layer_depth(f'layers.{i}.blocks.{j}.attn.rope.freqs') == (depth, 9)
        assert model.get_layer_depth(f'layers.{i}.downsample.reduction.weight') == (depth, 9)
    for name in ('backbone.norm1.weight', 'neck.layers.0.weight', 'bbox_head.fc.weight'):
        assert model.get_layer_depth(name, prefix='backbone.') == (8, 9)


def test_drop_path_rises_over_depth() -> None:
    rates = [b.drop_path.drop_prob for stage in tiny(drop_path_rate=0.3).layers for b in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def test_thetas_are_the_papers() -> None:
    for rope, theta in (('mixed', 10), ('axial', 50)):
        freqs = RoPESwin('tiny', rope=rope).layers[0].blocks[0].attn.rope.freqs
        magnitude = freqs.detach().norm(dim=0)[0]  # (head_dim // 2,), twice the same
        expected = theta ** (-torch.arange(0, 32, 4) / 32)
        torch.testing.assert_close(magnitude, expected.repeat(2))


SHORT = dict(embed_dims=16, depths=(2, 1), num_heads=(2, 2))


@pytest.mark.parametrize('variant', [dict(rope='axial'), dict(rope='mixed', rpb=True)], ids=['axial', 'mixed+rpb'])
def test_compiles_in_one_graph(variant: dict, close: Callable[..., None]) -> None:
    model = tiny(arch=SHORT, out_indices=(0, 1), **variant).eval()
    x = torch.randn(1, 3, 61, 100)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        for ours, theirs in zip(compiled(x), model(x)):
            close(ours, theirs)


@pytest.mark.parametrize('backend', ['aot_eager', pytest.param('inductor', marks=[pytest.mark.slow, needs_compiler])])
def test_compiled_training_step_equals_eager(backend: str, close: Callable[..., None]) -> None:
    model = tiny(arch=SHORT, out_indices=(-1,), rpb=True)
    twin = copy.deepcopy(model)
    x = torch.randn(1, 3, 61, 100)
    torch.compile(model, fullgraph=True, backend=backend)(x)[-1].square().mean().backward()
    twin(x)[-1].square().mean().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    'arguments, named',
    [
        (dict(arch='huge'), "arch .*tiny, small, base.* 'huge'"),
        (dict(arch=dict(embed_dims=32, depths=(2, 2))), 'arch .*num_heads'),
        (dict(arch=dict(embed_dims=32, depths=(2, 0), num_heads=(2, 4))), r'depths .* \(2, 0\)'),
        (dict(arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2,))), r'num_heads .* \(2,\)'),
        (dict(arch=dict(embed_dims=32, depths=(2,), num_heads=(3,)), out_indices=(0,)), r'num_heads.*\b32\b.*\b3\b'),
        (dict(arch=dict(embed_dims=12, depths=(2,), num_heads=(2,)), out_indices=(0,)), 'head_dim .* 6'),
        (dict(rope='learned'), "rope .*'learned'"),
        (dict(rope_theta=0), 'rope_theta .* 0'),
        (dict(rope=None, rope_theta=10.0), 'rope_theta .* 10'),
        (dict(window_size=0), 'window_size .* 0'),
        (dict(window_size=(7, 7)), r'window_size .* \(7, 7\)'),
        (dict(out_indices=(0, 3)), r'out_indices .* \(0, 3\)'),
        (dict(out_indices=(1, -2)), r'out_indices .*repeat.*\(1, -2\)'),
        (dict(out_indices=()), r'out_indices .*\(\)'),
        (dict(out_type='cls_token'), "out_type .*'featmap'.*'avg_featmap'.*'cls_token'"),
        (dict(drop_path_rate=-0.1), 'drop_path_rate .* -0.1'),
        (dict(frozen_stages=4), 'frozen_stages .* 4'),
        (dict(patch_size=0), 'patch_size .* 0'),
        (dict(in_channels=0), 'in_channels .* 0'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_wrong_arguments_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tiny(**arguments)


@pytest.mark.parametrize('shape', [(1, 4, 32, 32), (3, 32, 32)])
def test_images_of_the_wrong_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf'x .*\b3\b.*{re.escape(str(shape))}'):
        tiny()(torch.randn(shape))
