import copy
import itertools
import re
from collections.abc import Callable

import pytest
import timm
import torch

from mmrope import RoPEViT
from tests.helpers.compiler import needs_compiler

VARIANTS = [dict(rope=rope, ape=ape) for rope, ape in itertools.product(('mixed', 'axial', None), (False, True))]
LAYOUTS = {
    'global': dict(),
    'cls token': dict(with_cls_token=True),
    'windowed': dict(window_size=3, global_attn_indexes=(1, -1)),
    'windows only': dict(window_size=4),
    'windows with prefix tokens': dict(window_size=3, global_attn_indexes=(1,), with_cls_token=True, num_registers=2),
    'registers alone': dict(window_size=3, num_registers=1),
    'every option': dict(
        window_size=3,
        window_frame=True,
        positions=dict(rule='reference', ref=5, offset=1),
        num_registers=2,
        mlp='swiglu',
        norm='rms',
        pre_norm=True,
        mlp_norm=True,
        attn_norm=True,
        qk_norm=True,
        norm_every_output=True,
        final_norm=True,
        pos_embed_resize='tile',
    ),
    'no LayerScale': dict(layer_scale_init_value=None),
}
variants = pytest.mark.parametrize('variant', VARIANTS, ids=lambda v: f'{v["rope"]}{"+ape" * v["ape"]}')
layouts = pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS.keys())


def tiny(**kwargs) -> RoPEViT:
    """A model small enough for CPU tests, with LayerScale large enough for every block to matter."""
    arch = dict(embed_dims=32, depth=4, num_heads=2)
    return RoPEViT(**{'arch': arch, 'img_size': 48, 'patch_size': 8, 'layer_scale_init_value': 0.5, **kwargs})


@variants
@layouts
@pytest.mark.parametrize('size', [(48, 48), (61, 100), (8, 90), (1, 1)])
def test_maps_have_the_promised_shape(variant, layout, size) -> None:
    outs = tiny(**{'final_norm': True, **variant, **layout}, out_indices=(0, 2, -1))(torch.randn(2, 3, *size))
    assert [out.shape for out in outs] == [(2, 32, -(-size[0] // 8), -(-size[1] // 8))] * 3
    assert all(out.is_contiguous() for out in outs)


@variants
@layouts
@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(variant, layout, with_cp) -> None:
    model = tiny(**{'final_norm': True, **variant, **layout}, with_cp=with_cp)
    sum(out.square().mean() for out in model(torch.randn(2, 3, 40, 72))).backward()
    missing = [name for name, param in model.named_parameters() if param.grad is None or not param.grad.abs().sum() > 0]
    assert not missing


def test_checkpointing_changes_neither_outputs_nor_gradients() -> None:
    model = tiny(window_size=3, global_attn_indexes=(1,))
    twin = copy.deepcopy(model)
    twin.with_cp = True
    x = torch.randn(2, 3, 40, 72)
    for m in (model, twin):
        m(x)[0].square().sum().backward()
    for ours, theirs in zip(twin.parameters(), model.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)


TIMM_NAMES = {
    '': dict(rope='axial', ape=False),
    '_mixed': dict(rope='mixed', ape=False),
    '_ape': dict(rope='axial', ape=True),
    '_mixed_ape': dict(rope='mixed', ape=True),
}


def from_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm keeps the frequencies of all blocks in one tensor; all other keys are the same."""
    ours = {key: value for key, value in state.items() if not key.startswith(('head.', 'rope.'))}
    for i, freqs in enumerate(state['rope.freqs'].unbind(1) if 'rope.freqs' in state else ()):
        ours[f'blocks.{i}.attn.rope.freqs'] = freqs
    return ours


def test_cls_tokens_are_those_that_attend_along() -> None:
    model = tiny(with_cls_token=True, final_norm=True, out_indices=(1, -1)).eval()
    tokens = []
    model.blocks[1].register_forward_hook(lambda module, inputs, x: tokens.append(x[:, 0]))
    model.norm.register_forward_hook(lambda module, inputs, x: tokens.append(x[:, 0]))
    x = torch.randn(2, 3, 61, 100)
    maps = model(x)
    model.out_type = 'cls_token'
    outs = model(x)
    assert [out.shape for out in maps] == [(2, 32, 8, 13)] * 2 and [out.shape for out in outs] == [(2, 32)] * 2
    assert all(torch.equal(out, token) for out, token in zip(outs, tokens[2:]))


@pytest.mark.parametrize('suffix, variant', TIMM_NAMES.items(), ids=lambda v: str(v))
@pytest.mark.parametrize('size', [pytest.param((224, 224), marks=pytest.mark.slow), (160, 320), (96, 64)])
def test_parity_with_timm(suffix, variant, size: tuple[int, int], close: Callable[..., None]) -> None:
    # img_size: so that timm, which resizes pos_embed with antialias, does not resize it
    theirs = timm.create_model(f'vit_small_patch16_rope{suffix}_224', img_size=size).eval()
    for name, param in theirs.named_parameters():
        if 'gamma' in name or 'pos_embed' in name or 'cls_token' in name:
            torch.nn.init.normal_(param, std=0.5)
    ours = RoPEViT('small', img_size=size, with_cls_token=True, final_norm=True, **variant).eval()
    ours.load_state_dict(from_timm(theirs.state_dict()))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs.forward_features(x)[:, 1:]
        close(ours(x)[0], expected.transpose(1, 2).unflatten(2, (size[0] // 16, size[1] // 16)))


def test_windows_that_hold_the_grid_are_global_attention() -> None:
    model = tiny(window_size=20)
    twin = tiny()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 61, 100)
    torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize('with_cls_token', [False, True])
def test_windows_that_no_block_attends_in_change_nothing(with_cls_token: bool) -> None:
    model = tiny(window_size=3, global_attn_indexes=(0, 1, 2, 3), with_cls_token=with_cls_token)
    twin = tiny(with_cls_token=with_cls_token)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 61, 100)
    assert torch.equal(model(x)[0], twin(x)[0])


@pytest.mark.parametrize('rule', [dict(rule='index', offset=1), dict(rule='reference', ref=5), dict(rule='centred')])
def test_windows_with_prefix_tokens_that_hold_the_grid_are_global_attention(rule) -> None:
    model = tiny(window_size=20, with_cls_token=True, num_registers=2, positions=rule)
    twin = tiny(with_cls_token=True, num_registers=2, positions=rule)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 61, 100)
    torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-5)


def test_a_fixed_frame_makes_features_independent_of_padding_to_the_right() -> None:
    """Positions that scale to the grid, padding included, do not."""
    x = torch.randn(1, 3, 48, 48)
    wider = torch.cat((x, torch.zeros(1, 3, 48, 48)), dim=3)
    for frame, same in ((6, True), (None, False)):
        model = tiny(window_size=6, positions=dict(rule='centred', frame=frame)).eval()
        assert torch.allclose(model(x)[0], model(wider)[0][..., :6], rtol=0, atol=1e-5) == same


def test_the_norm_of_every_output_is_the_final_one() -> None:
    model = tiny(final_norm=True, norm_every_output=True, out_indices=(0, 1, -1)).eval()
    plain = tiny(out_indices=(0, 1, -1)).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.nn.init.normal_(model.norm.weight)
    x = torch.randn(1, 3, 40, 40)
    for normed, out in zip(model(x), plain(x)):
        torch.testing.assert_close(normed, model.norm(out.movedim(1, -1)).movedim(-1, 1), rtol=0, atol=1e-5)
    assert tiny(final_norm=True, norm_every_output=True, out_indices=(0,)).norm.weight.requires_grad
    assert not tiny(final_norm=True, out_indices=(0,)).norm.weight.requires_grad


def test_window_only_model_equals_itself_on_each_window() -> None:
    model = tiny(window_size=3).eval()
    x = torch.randn(1, 3, 48, 72)  # 6 x 9 tokens, 2 x 3 windows of 3 x 3
    whole = model(x)[0]
    for row, col in itertools.product(range(2), range(3)):
        part = model(x[..., 24 * row : 24 * row + 24, 24 * col : 24 * col + 24])[0]
        torch.testing.assert_close(whole[..., 3 * row : 3 * row + 3, 3 * col : 3 * col + 3], part, rtol=0, atol=1e-5)


def test_grids_of_equal_token_count_do_not_share_tables() -> None:
    model, x = tiny().eval(), torch.randn(1, 3, 64, 256)
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        model(torch.randn(1, 3, 128, 128))
        assert torch.equal(model(x)[0], fresh(x)[0])


def test_images_of_a_batch_do_not_mix() -> None:
    model, x = tiny(window_size=3, global_attn_indexes=(1,)).eval(), torch.randn(3, 3, 61, 100)
    torch.testing.assert_close(model(x)[0][1:2], model(x[1:2])[0], rtol=0, atol=1e-5)


def test_padding_is_at_the_bottom_and_right() -> None:
    model, x = tiny().eval(), torch.randn(1, 3, 61, 100)
    padded = torch.zeros(1, 3, 64, 104)
    padded[..., :61, :100] = x
    assert torch.equal(model(x)[0], model(padded)[0])


@variants
def test_transposed_image_with_swapped_axes_is_the_transposed_map(variant) -> None:
    model = tiny(**variant, window_size=3, global_attn_indexes=(1,)).double().eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.patch_embed.proj.weight.copy_(model.patch_embed.proj.weight.transpose(2, 3))
        if variant['ape']:
            twin.pos_embed.copy_(model.pos_embed.unflatten(1, (6, 6)).transpose(1, 2).flatten(1, 2))
        for block in twin.blocks:
            if block.attn.rope is not None:
                block.attn.rope.freqs.copy_(block.attn.rope.freqs.flip(0).clone())
    x = torch.randn(1, 3, 56, 88).double()
    torch.testing.assert_close(twin(x.transpose(2, 3))[0].transpose(2, 3), model(x)[0], rtol=0, atol=1e-9)


@variants
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('how', ['autocast', 'cast'])
def test_half_precision_stays_close_to_float32(
    variant, dtype: torch.dtype, how: str, close: Callable[..., None]
) -> None:
    model = tiny(**variant, window_size=5, global_attn_indexes=(3,), final_norm=True).eval()
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
    model = tiny(window_size=3, global_attn_indexes=(1,))
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        loss = model(torch.randn(2, 3, 61, 100))[0].float().square().mean()
    loss.backward()
    assert all(param.grad.isfinite().all() for param in model.parameters())


def test_state_dict_keys() -> None:
    blocks = [
        f'blocks.{i}.{name}'
        for i in range(4)
        for name in (
            'gamma_1 gamma_2 norm1.weight norm1.bias attn.qkv.weight attn.qkv.bias attn.rope.freqs attn.proj.weight '
            'attn.proj.bias norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias'
        ).split()
    ]
    rest = ['cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias', 'norm.weight', 'norm.bias']
    full = tiny(ape=True, with_cls_token=True, final_norm=True)
    assert sorted(full.state_dict()) == sorted(blocks + rest)
    axial = tiny(rope='axial')
    assert sorted(axial.state_dict()) == sorted([b for b in blocks if 'freqs' not in b] + rest[2:4])


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_learn_nothing_and_stay_in_eval(frozen_stages) -> None:
    tokens = dict(ape=True, with_cls_token=True, num_registers=2, pre_norm=True)
    model = tiny(frozen_stages=frozen_stages, **tokens, final_norm=True, drop_path_rate=0.5)
    model.train()
    learning = {name for name, param in model.named_parameters() if param.requires_grad}
    embeddings = {
        'cls_token',
        'reg_token',
        'norm_pre.weight',
        'pos_embed',
        'patch_embed.proj.weight',
        'patch_embed.proj.bias',
    }
    assert embeddings.isdisjoint(learning) == (frozen_stages >= 0)
    for i, block in enumerate(model.blocks):
        assert any(name.startswith(f'blocks.{i}.') for name in learning) == (i >= frozen_stages)
        assert block.training == (i >= frozen_stages)
    assert ('norm.weight' in learning) == (frozen_stages < 4)


def test_frozen_stages_train_with_checkpointing() -> None:
    model = tiny(frozen_stages=2, with_cp=True).train()
    model(torch.randn(1, 3, 40, 40))[0].sum().backward()
    assert model.blocks[2].mlp.fc1.weight.grad is not None and model.blocks[1].mlp.fc1.weight.grad is None


def test_train_and_eval_return_self() -> None:
    model = tiny()
    assert model.train() is model and model.eval() is model


def test_layer_depth_counts_from_the_embeddings_to_the_heads() -> None:
    model = tiny(ape=True, with_cls_token=True, num_registers=2, pre_norm=True, final_norm=True)
    for name in ('cls_token', 'reg_token', 'norm_pre.bias', 'pos_embed', 'patch_embed.proj.bias'):
        assert model.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (0, 6)
    for i in range(4):
        assert model.get_layer_depth(f'blocks.{i}.attn.rope.freqs') == (i + 1, 6)
    for name in ('backbone.norm.weight', 'neck.blocks.0.weight', 'bbox_head.fc.weight'):
        assert model.get_layer_depth(name, prefix='backbone.') == (5, 6)


def test_drop_path_rises_over_depth() -> None:
    rates = [block.drop_path.drop_prob for block in tiny(drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize('arch', ['small', 'base', 'large'])
def test_sizes_are_those_of_deit_iii(arch: str) -> None:
    with torch.device('meta'):
        ours = RoPEViT(arch, rope=None, ape=True, with_cls_token=True, final_norm=True)
        theirs = timm.create_model(f'deit3_{arch}_patch16_224', num_classes=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@variants
def test_compiles_in_one_graph(variant, close: Callable[..., None]) -> None:
    model = tiny(**variant, window_size=5, global_attn_indexes=(1,)).eval()
    x = torch.randn(1, 3, 61, 100)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        close(compiled(x)[0], model(x)[0])


@pytest.mark.parametrize('backend', ['aot_eager', pytest.param('inductor', marks=[pytest.mark.slow, needs_compiler])])
def test_compiled_training_step_equals_eager(backend: str, close: Callable[..., None]) -> None:
    model = tiny(window_size=5, global_attn_indexes=(1,))
    twin = copy.deepcopy(model)
    x = torch.randn(1, 3, 61, 100)
    torch.compile(model, fullgraph=True, backend=backend)(x)[0].square().mean().backward()
    twin(x)[0].square().mean().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    'arguments, named',
    [
        (dict(arch='huge'), "arch .*tiny, small, base, large.* 'huge'"),
        (dict(arch=dict(embed_dims=32, depth=2)), 'arch .*num_heads'),
        (dict(arch=dict(embed_dims=32, depth=2, num_heads=2, width=3)), 'arch .*width'),
        (dict(arch=dict(embed_dims=32, depth=0, num_heads=2)), 'depth .* 0'),
        (dict(arch=dict(embed_dims=32, depth=2, num_heads=3)), r'num_heads.*\b32\b.*\b3\b'),
        (dict(arch=dict(embed_dims=12, depth=2, num_heads=2)), 'head_dim .* 6'),
        (dict(rope='learned'), "rope .*'learned'"),
        (dict(rope_theta=0), 'theta .* 0'),
        (dict(rope=None, rope_theta=10.0), 'rope_theta .* 10'),
        (dict(window_size=-1), 'window_size .* -1'),
        (dict(window_size=2, global_attn_indexes=(4,)), r'global_attn_indexes .* \(4,\)'),
        (dict(window_size=2, global_attn_indexes=(3, -1)), r'global_attn_indexes .*repeat.*\(3, -1\)'),
        (dict(out_indices=(0, 7)), r'out_indices .* \(0, 7\)'),
        (dict(out_indices=(1, 1)), 'out_indices must not repeat'),
        (dict(out_indices=()), 'out_indices must name'),
        (dict(out_type='avg_featmap'), "out_type must be 'featmap' or 'cls_token', but got 'avg_featmap'"),
        (dict(out_type='cls_token'), "out_type = 'cls_token' needs with_cls_token = True"),
        (dict(num_registers=-1), 'num_registers .* -1'),
        (dict(mlp='relu'), "mlp must be 'gelu' or 'swiglu', but got 'relu'"),
        (dict(norm='batch'), "norm must be 'layer' or 'rms', but got 'batch'"),
        (dict(pos_embed_resize='nearest'), "pos_embed_resize .*'tile', but got 'nearest'"),
        (dict(norm_every_output=True), 'norm_every_output = True needs final_norm = True'),
        (dict(positions=dict(rule='linear')), "rule of positions .*'centred', but got 'linear'"),
        (dict(positions=dict(rule='reference')), "ref of positions .* got None for 'reference'"),
        (dict(positions=dict(ref=3)), "ref of positions .* got 3 for 'index'"),
        (dict(positions=dict(rule='reference', ref=(0, 2))), r'ref of positions .* \(0, 2\)'),
        (dict(positions=dict(rule='centred', offset=1)), "offset of positions .* 'centred', but got 1"),
        (dict(positions=dict(frame=3)), "frame of positions .* got 3 for 'index'"),
        (dict(positions=dict(rule='centred', frame=0)), 'frame of positions .* got 0'),
        (dict(positions=dict(step=3)), "positions must be None or a dict .* {'step': 3}"),
        (dict(positions='index'), "positions must be None or a dict .* 'index'"),
        (dict(drop_path_rate=1.0), 'drop_path_rate .* 1.0'),
        (dict(frozen_stages=5), 'frozen_stages .* 5'),
        (dict(patch_size=0), 'patch_size .* 0'),
        (dict(in_channels=0), 'in_channels .* 0'),
        (dict(patch_size=(8, 8)), r'patch_size .* \(8, 8\)'),
        (dict(window_size=(7, 7)), r'window_size .* \(7, 7\)'),
        (dict(img_size=0), 'img_size .* 0'),
        (dict(img_size=(48, 0)), r'img_size .*\(H, W\).* \(48, 0\)'),
        (dict(img_size=(48,)), r'img_size .*\(H, W\).* \(48,\)'),
        (dict(img_size='48'), "img_size .*'48'"),
        (dict(rope_theta='100'), "rope_theta .*'100'"),
        (dict(positions=dict(rule='reference', ref=(1, 2, 3))), r'ref of positions .*\(H, W\).*\(1, 2, 3\)'),
        (dict(positions=dict(rule='centred', frame='3')), "frame of positions .*'3'"),
        (dict(positions=dict(offset='1')), "offset of positions .*'1'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_wrong_arguments_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tiny(**arguments)


@pytest.mark.parametrize('shape', [(1, 4, 32, 32), (3, 32, 32), (1, 1, 32, 32)])
def test_images_of_the_wrong_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf'x .*\b3\b.*{re.escape(str(shape))}'):
        tiny()(torch.randn(shape))


def opened(layout: dict, **settings) -> RoPEViT:
    """A model whose last two blocks are open; the windowed layouts get global attention there."""
    if layout.get('window_size'):
        layout = {**layout, 'global_attn_indexes': (*layout.get('global_attn_indexes', ()), 2, 3)}
        layout['global_attn_indexes'] = tuple({i % 4 for i in layout['global_attn_indexes']})
    return tiny(**{'final_norm': True, 'open_blocks': 2, 'out_indices': (), **layout, **settings})


@layouts
@pytest.mark.parametrize('with_cp', [False, True])
def test_open_blocks_go_on_as_closed_ones(layout: dict, with_cp: bool) -> None:
    model = opened(layout, with_cp=with_cp, out_indices=(0, 1))
    closed = opened(layout, open_blocks=0, out_indices=(0, 1, -1))
    assert model.state_dict().keys() == closed.state_dict().keys()
    closed.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 61, 100)
    *maps, tokens = model(x)
    y = tokens.x
    for block in tokens.blocks:
        y = block(y)
    y = tokens.norm(y)
    ours = [*maps, y[:, -8 * 13 :].transpose(1, 2).unflatten(2, (8, 13))]
    assert tokens.grid == (8, 13) and len(tokens.blocks) == 2 and y.shape[1] == model.num_prefix + 8 * 13
    for ours_, theirs in zip(ours, closed(x), strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=0, atol=1e-5)


def test_tokens_before_those_of_open_blocks_attend_without_position() -> None:
    """Their order does not matter, but what they hold does."""
    model = opened(dict(window_size=3, with_cls_token=True)).eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)
    tokens = model(torch.randn(2, 3, 61, 100))[-1]
    queries = torch.randn(2, 3, 32)

    def run(queries: torch.Tensor) -> torch.Tensor:
        x = torch.cat((queries, tokens.x), dim=1)
        for block in tokens.blocks:
            x = block(x)
        return x

    x, y = run(queries), run(queries.flip(1))
    torch.testing.assert_close(x, torch.cat((y[:, :3].flip(1), y[:, 3:]), dim=1), rtol=0, atol=1e-5)
    assert (x[:, 3:] - run(queries * 0)[:, 3:]).abs().max() > 1e-3


@pytest.mark.parametrize('window_size', [0, 3])
def test_maps_can_be_made_of_tokens_in_open_blocks(window_size: int) -> None:
    model = opened(dict(window_size=window_size, with_cls_token=True), out_indices=(1,)).eval()
    seen = []
    model.blocks[2].register_forward_hook(lambda module, args, x: seen.append(args[0]))
    *maps, tokens = model(torch.randn(2, 3, 61, 100))
    tokens.blocks[0](torch.cat((torch.randn(2, 5, 32), tokens.x), dim=1))
    assert torch.equal(model.to_grid(seen[0], (61, 100)), maps[0])
    with pytest.raises(ValueError, match=r'x must be \(B, 1 \+ 8 \* 13, C\) tokens'):
        model.to_grid(seen[0][:, 8:], (61, 100))


def test_open_blocks_keep_their_depth_and_are_frozen_with_the_others() -> None:
    model, closed = opened({}), tiny(final_norm=True)
    for name, _ in model.named_parameters():
        assert model.get_layer_depth(name) == closed.get_layer_depth(name)
    assert all(param.requires_grad for param in model.parameters())
    frozen = opened({}, frozen_stages=3)
    learning = {name.split('.')[1] for name, param in frozen.named_parameters() if param.requires_grad}
    assert learning == {'3', 'weight', 'bias'}  # the last block and the final norm
    assert not any(param.requires_grad for param in opened({}, frozen_stages=4).parameters())
    assert model.notes() == closed.notes()


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(open_blocks=-1), 'open_blocks must be an int between 0 and 4, but got -1'),
        (dict(open_blocks=5), 'open_blocks must be an int between 0 and 4, but got 5'),
        (dict(open_blocks=1.0), 'open_blocks must be an int between 0 and 4, but got 1.0'),
        (dict(final_norm=False), 'open_blocks = 2 needs final_norm = True, but got final_norm = False'),
        (dict(out_indices=(-1,)), 'out_indices must be below 2 or be empty with open_blocks = 2, but got (3,)'),
        (dict(out_indices=(0, 2)), 'out_indices must be below 2 or be empty with open_blocks = 2, but got (0, 2)'),
        (dict(open_blocks=4, out_indices=(0,)), 'out_indices must be empty with open_blocks = 4, but got (0,)'),
        (dict(open_blocks=0), 'out_indices must name at least one index, but got ()'),
        (
            dict(window_size=3, global_attn_indexes=(0, 3)),
            'global_attn_indexes must hold 2 to 3 with open_blocks = 2, but got (0, 3)',
        ),
    ],
)
def test_open_blocks_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(**{'final_norm': True, 'open_blocks': 2, 'out_indices': (), **settings})
