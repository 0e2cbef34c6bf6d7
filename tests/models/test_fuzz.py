"""Both backbones against their definitions in float64, outputs and every gradient, at whatever sizes Hypothesis finds.

`make test` tries 40 examples of each kind, `make test-all` 2,000.
"""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmrope import RoPESwin, RoPEViT
from mmrope.layers import Attention, even_windows, one_window, reorder, shifted_windows
from tests.helpers.classic_swin import classic_swin, weights_of
from tests.helpers.plain_vit import plain_vit

EXAMPLES, MANY = 40, 2000
# Largest norm of an error over that of the values. float64 and float32: some hundred roundings. Half precision, by
# autocast: a LayerNorm of few channels can enlarge a rounding without limit (with 16 channels and 9 tokens outputs in
# bfloat16 were off by 0.11; without rotation gradients by 0.8), so here it is only held to be near, and its gradients
# to be finite; tests/models/test_precision.py and tests/layers/test_attention.py hold it closer.
OUTPUT_ERROR = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.5}
GRAD_ERROR = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: torch.inf, torch.bfloat16: torch.inf}

dtypes = st.sampled_from(list(OUTPUT_ERROR))
ropes = st.sampled_from(['mixed', 'mixed', 'axial', None])
sides = st.integers(1, 40)
head_dims = st.sampled_from([4, 8, 12, 16])
rules = st.one_of(
    st.builds(lambda offset: dict(rule='index', offset=offset), st.sampled_from([0, 1])),
    st.builds(
        lambda ref, offset, frame: dict(rule='reference', ref=ref, offset=offset, frame=frame),
        st.sampled_from([3, (2, 5)]),
        st.sampled_from([0, 1]),
        st.sampled_from([None, 7, (4, 9)]),
    ),
    st.builds(lambda frame: dict(rule='centred', frame=frame), st.sampled_from([None, None, 6])),
)


@st.composite
def vits(draw: st.DrawFn) -> tuple[dict[str, Any], set[int]]:
    """Arguments of a ViT, and the blocks with global attention."""
    heads, depth = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    window_size = draw(st.sampled_from([0, 1, 2, 3, 5, 8]))
    blocks = st.sets(st.integers(0, depth - 1))
    global_blocks = draw(blocks) if window_size else set(range(depth))
    arguments = dict(
        arch=dict(embed_dims=heads * draw(head_dims), depth=depth, num_heads=heads, mlp_ratio=2),
        img_size=draw(st.tuples(sides, sides)),
        patch_size=draw(st.integers(2, 9)),
        rope=draw(ropes),
        ape=draw(st.booleans()),
        window_size=window_size,
        global_attn_indexes=sorted(global_blocks) if window_size else (),
        out_indices=sorted(draw(blocks) | {depth - 1}),
        with_cls_token=draw(st.booleans()),
        num_registers=draw(st.sampled_from([0, 0, 1, 3])),
        layer_scale_init_value=draw(st.sampled_from([None, 0.5])),
        final_norm=(final_norm := draw(st.booleans())),
        with_cp=draw(st.booleans()),
    )
    if draw(st.booleans()):  # what other families need
        arguments |= dict(
            positions=draw(rules),
            window_frame=draw(st.booleans()),
            mlp=draw(st.sampled_from(['gelu', 'swiglu'])),
            norm=draw(st.sampled_from(['layer', 'rms'])),
            norm_eps=1e-5,
            norm_every_output=final_norm and draw(st.booleans()),
            pos_embed_resize=draw(st.sampled_from(['bicubic', 'bicubic_antialias', 'bilinear', 'tile'])),
            **{name: draw(st.booleans()) for name in ('mlp_norm', 'attn_norm', 'qk_norm', 'pre_norm')},
        )
    return arguments, global_blocks


@st.composite
def swins(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a Swin."""
    stages, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    depths = draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages))
    return dict(
        arch=dict(embed_dims=heads * draw(head_dims), depths=depths, num_heads=[heads] * stages, mlp_ratio=2),
        patch_size=draw(st.integers(1, 5)),
        window_size=draw(st.integers(1, 8)),
        rope=draw(ropes),
        rpb=draw(st.booleans()),
        out_indices=range(stages),
        drop_path_rate=0.0,
        with_cp=draw(st.booleans()),
    )


def compare(model: nn.Module, oracle, x: Tensor, dtype: torch.dtype) -> None:
    """``oracle(weights)`` gives what ``model(x)`` should; both learn from the same random direction of the outputs."""
    for name, param in model.named_parameters():  # far from where layers are nearly the identity
        if name.endswith(('qkv.weight', 'qkv.bias', 'table', 'cls_token', 'reg_token', 'pos_embed')):
            nn.init.normal_(param, std=0.3)
    half = dtype.itemsize < 4
    model.to(torch.float32 if half else dtype)
    weights = {name: value.requires_grad_() for name, value in weights_of(model).items()}
    with torch.autocast('cpu', dtype if half else torch.bfloat16, enabled=half):
        ours = model(x.to(torch.float32 if half else dtype))
    theirs = oracle(weights)
    assert [out.shape for out in ours] == [out.shape for out in theirs]
    directions = [torch.randn_like(out) for out in theirs]
    for outs in (ours, theirs):
        sum((out.double() * direction).sum() for out, direction in zip(outs, directions)).backward()
    error(ours, theirs, OUTPUT_ERROR[dtype], 'outputs')
    for name, param in model.named_parameters():
        expected = torch.zeros_like(weights[name]) if weights[name].grad is None else weights[name].grad
        scale = max(
            expected.norm(), 1e-2 * sum(g.grad.norm() ** 2 for g in weights.values() if g.grad is not None) ** 0.5
        )
        got = torch.zeros_like(param) if param.grad is None else param.grad
        assert got.isfinite().all(), f'gradient of {name}'
        assert (got.double() - expected).norm() <= GRAD_ERROR[dtype] * scale, f'gradient of {name}'


def error(ours, theirs, most: float, what: str) -> None:
    wrong, right = (
        sum(x.norm() ** 2 for x in xs) ** 0.5 for xs in ([a.double() - b for a, b in zip(ours, theirs)], theirs)
    )
    assert wrong <= most * right, what


def check_vit(vit, batch, size, dtype, seed) -> None:
    torch.manual_seed(seed)
    arguments, global_blocks = vit
    model, x = RoPEViT(**arguments), torch.randn(batch, 3, *size)
    eps = arguments.get('norm_eps', 1e-6)
    compare(model, lambda weights: plain_vit(model, x, weights, global_blocks, eps), x, dtype)


def check_swin(arguments, batch, size, dtype, seed) -> None:
    torch.manual_seed(seed)
    model, x = RoPESwin(**arguments), torch.randn(batch, 3, *size)
    window_size = arguments['window_size']
    compare(model, lambda weights: classic_swin(model, x, window_size, weights=weights), x, dtype)


def check_attention(grid, heads, head_dim, rope, window_size, shift, prefix, across, bias, batch, dtype, seed) -> None:
    """Attention alone, with any shift, against its definition over all pairs of tokens."""
    torch.manual_seed(seed)
    rows, cols = grid
    windows = shifted_windows(grid, window_size, shift % window_size) if shift else even_windows(grid, window_size)
    windows = one_window(grid) if prefix else windows
    bias = bias and not prefix and not across
    dim = heads * head_dim
    attn = Attention(dim, heads, rope, 10.0, max(window_size, *grid) if bias else None)
    attn.to(dtype)
    for param in attn.parameters():
        nn.init.normal_(param, std=0.3)
    x = torch.randn(batch, prefix + rows * cols, dim, dtype=dtype, requires_grad=True)
    direction = torch.randn(x.shape, dtype=torch.float64)
    row_by_row = one_window(grid)
    seen = (row_by_row, windows) if across else (windows, None)
    if prefix:
        ours = attn(x, windows)
    else:
        ours = reorder(attn(reorder(x, row_by_row, windows), *seen), windows, row_by_row)
    (ours.double() * direction).sum().backward()

    names = {name: value.detach().double().requires_grad_() for name, value in attn.named_parameters()}
    freqs = None if rope is None else names.get('rope.freqs', attn.rope.freqs.detach().double())
    y = x.detach().double().requires_grad_()
    qkv = (y @ names['qkv.weight'].T + names['qkv.bias']).unflatten(-1, (3, heads, head_dim))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).view(-1, 2)
    if freqs is not None:
        angles = places[:, 1:].double() * freqs[0][:, None] + places[:, :1].double() * freqs[1][:, None]
        turn = torch.polar(torch.ones_like(angles), angles)
        q, k = (turned(part, turn, prefix) for part in (q, k))
    logits = q @ k.transpose(-1, -2) / head_dim**0.5
    if not across and not prefix:
        ids = window_ids(windows)
        logits = logits.masked_fill(ids[:, None] != ids, -torch.inf)
    if bias:
        side = attn.rpb.window_size
        offsets = places[:, None] - places + side - 1
        logits = logits + names['rpb.relative_position_bias_table'][
            offsets[..., 0] * (2 * side - 1) + offsets[..., 1]
        ].permute(2, 0, 1)
    out = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    theirs = out @ names['proj.weight'].T + names['proj.bias']
    (theirs * direction).sum().backward()
    error([ours], [theirs], OUTPUT_ERROR[dtype], 'output')
    error([x.grad], [y.grad], GRAD_ERROR[dtype], 'gradient of x')
    grads = [(param.grad, names[name].grad) for name, param in attn.named_parameters()]
    error(*zip(*grads), GRAD_ERROR[dtype], 'gradients')


def turned(x: Tensor, turn: Tensor, prefix: int) -> Tensor:
    pairs = torch.view_as_complex(x[:, :, prefix:].unflatten(-1, (-1, 2)).contiguous()) * turn
    return torch.cat((x[:, :, :prefix], torch.view_as_real(pairs).flatten(-2)), dim=2)


def window_ids(windows) -> Tensor:
    """Number of the window of each token, row by row, from the spans."""
    axes = []
    for spans in (windows.rows, windows.cols):
        starts = torch.tensor([span.start + i * span.size for span in spans for i in range(span.number)])
        length = spans[-1].start + spans[-1].size * spans[-1].number
        axes.append((torch.arange(length)[:, None] >= starts).sum(1))
    return (axes[0][:, None] * 10_000 + axes[1]).flatten()


ARGUMENTS = dict(batch=st.integers(1, 3), size=st.tuples(sides, sides), dtype=dtypes, seed=st.integers(0, 2**31))
KINDS = {
    'vit': (check_vit, dict(vit=vits(), **ARGUMENTS)),
    'swin': (check_swin, dict(arguments=swins(), **ARGUMENTS)),
    'attention': (
        check_attention,
        dict(
            grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
            heads=st.integers(1, 4),
            head_dim=head_dims,
            rope=ropes,
            window_size=st.integers(1, 9),
            shift=st.integers(0, 8),
            prefix=st.sampled_from([0, 0, 0, 1, 3]),
            across=st.booleans(),
            bias=st.booleans(),
            batch=st.integers(1, 3),
            dtype=st.sampled_from([torch.float64, torch.float32]),
            seed=st.integers(0, 2**31),
        ),
    ),
}


@pytest.mark.parametrize('examples', [EXAMPLES, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize('kind', KINDS)
def test_fuzz(kind: str, examples: int) -> None:
    check, arguments = KINDS[kind]
    limits = settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples == EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    limits(given(**arguments)(check))()
