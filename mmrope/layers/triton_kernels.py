"""Triton kernels; :mod:`.kernels` says what each computes.

They use no atomic addition, so every run gives the same bits.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

# Triton's interpreter runs the kernels on the CPU; it has to be chosen before this module is imported.
DEVICES = ('CUDA', 'CPU') if os.environ.get('TRITON_INTERPRET') == '1' else ('CUDA',)
TILE = 1024  # channel pairs per program
TOKENS, CHANNELS = 64, 64  # per program of scale_gradients


@triton.jit
def _cos_sin(angles, place, pair, in_pairs, SIDE, PAIRS, HALF: tl.constexpr, SHARED: tl.constexpr):
    """Compute cosine and sine of the angles of some tokens, ``(T, P)``; 1 and 0 for prefix tokens."""
    column = pair % HALF if SHARED else pair
    size = HALF if SHARED else PAIRS
    known = (place >= 0)[:, None] & in_pairs
    of_col = tl.load(angles + (place & 0xFFFF)[:, None] * size + column, known, 0.0)
    of_row = tl.load(angles + (SIDE + (place >> 16))[:, None] * size + column, known, 0.0)
    return tl.cos(of_col + of_row), tl.sin(of_col + of_row)


@triton.jit
def _turn(x, cos, sin, T: tl.constexpr, P: tl.constexpr):
    """Rotate the channel pairs of ``(T, 2 P)``."""
    a, b = tl.split(tl.reshape(x.to(tl.float32), (T, P, 2)))
    return tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), (T, 2 * P))


@triton.jit
def _along(y, g, T: tl.constexpr, P: tl.constexpr):
    """Compute the gradient of the angles of ``y``: the part of its gradient ``g`` along ``i * y``."""
    a, b = tl.split(tl.reshape(y.to(tl.float32), (T, P, 2)))
    c, d = tl.split(tl.reshape(g.to(tl.float32), (T, P, 2)))
    return a * d - b * c


@triton.jit
def _rotate_kernel(
    out, qkv, angles, places, B, N, SIDE, PAIRS,
    HALF: tl.constexpr, SHARED: tl.constexpr, ROTATE: tl.constexpr,
    IMAGES: tl.constexpr, T: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    token, pair = tl.program_id(0) * T + tl.arange(0, T), tl.program_id(1) * P + tl.arange(0, P)
    channel = tl.program_id(1) * 2 * P + tl.arange(0, 2 * P)
    in_tokens, inside = token < N, (token < N)[:, None] & (channel < 2 * PAIRS)
    place = tl.load(places + token, in_tokens, -1)
    group = tl.load(places + N + token, in_tokens, 0).to(tl.int64)
    length = tl.load(places + 2 * N + token, in_tokens, 0).to(tl.int64)
    if ROTATE:
        cos, sin = _cos_sin(angles, place, pair, pair < PAIRS, SIDE, PAIRS, HALF, SHARED)
    first = tl.program_id(2) * IMAGES
    row = first.to(tl.int64) * N + token  # in qkv
    new = group * B + first * length + token - group  # in out
    for _ in range(first, min(first + IMAGES, B)):
        at, to = qkv + row[:, None] * 6 * PAIRS + channel, out + new[:, None] * 6 * PAIRS + channel
        for i in tl.static_range(3):
            x = tl.load(at + 2 * i * PAIRS, inside)
            if ROTATE and i < 2:
                x = _turn(x, cos, sin, T, P).to(x.dtype)
            tl.store(to + 2 * i * PAIRS, x, inside)
        row += N
        new += length


@triton.jit
def _unrotate_kernel(
    grad, turn, grad_q, grad_k, grad_v, q, k, angles, places,
    B, N, LENGTH, WINDOWS, SIDE, PAIRS, GRAD_IMAGE, GRAD_TOKEN, TURN_CHUNK,
    gq0, gq1, gq2, gk0, gk1, gk2, gv0, gv1, gv2, q0, q1, q2, k0, k1, k2,
    HALF: tl.constexpr, SHARED: tl.constexpr, ROTATE: tl.constexpr, LEARN: tl.constexpr,
    IMAGES: tl.constexpr, T: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Run the backward pass of a group: ``N`` tokens per image, in ``WINDOWS`` windows of ``LENGTH`` tokens."""
    token, pair = tl.program_id(0) * T + tl.arange(0, T), tl.program_id(1) * P + tl.arange(0, P)
    channel = tl.program_id(1) * 2 * P + tl.arange(0, 2 * P)
    in_tokens, inside = token < N, (token < N)[:, None] & (channel < 2 * PAIRS)
    window, n = token // LENGTH, (token % LENGTH)[:, None]
    head, d = (channel // (2 * HALF))[None, :], channel % (2 * HALF)
    if ROTATE:
        place = tl.load(places + token, in_tokens, -1)
        cos, sin = _cos_sin(angles, place, pair, pair < PAIRS, SIDE, PAIRS, HALF, SHARED)
    along = tl.zeros((T, P), tl.float32)
    first = tl.program_id(2) * IMAGES
    w = first.to(tl.int64) * WINDOWS + window[:, None]
    to = grad + first.to(tl.int64) * GRAD_IMAGE + token[:, None] * GRAD_TOKEN + channel
    for _ in range(first, min(first + IMAGES, B)):
        gq = tl.load(grad_q + w * gq0 + head * gq1 + n * gq2 + d, inside, 0.0)
        gk = tl.load(grad_k + w * gk0 + head * gk1 + n * gk2 + d, inside, 0.0)
        gv = tl.load(grad_v + w * gv0 + head * gv1 + n * gv2 + d, inside, 0.0)
        if LEARN:
            yq = tl.load(q + w * q0 + head * q1 + n * q2 + d, inside, 0.0)
            yk = tl.load(k + w * k0 + head * k1 + n * k2 + d, inside, 0.0)
            along += _along(yq, gq, T, P) + _along(yk, gk, T, P)
        if ROTATE:
            gq, gk = _turn(gq, cos, -sin, T, P).to(gq.dtype), _turn(gk, cos, -sin, T, P).to(gk.dtype)
        tl.store(to, gq, inside)
        tl.store(to + 2 * PAIRS, gk, inside)
        tl.store(to + 4 * PAIRS, gv, inside)
        w += WINDOWS
        to += GRAD_IMAGE
    if LEARN:
        at = turn + tl.program_id(2).to(tl.int64) * TURN_CHUNK + token[:, None] * PAIRS + pair
        tl.store(at, along, in_tokens[:, None] & (pair < PAIRS))


@triton.jit
def _scale_kernel(
    grad, branch, scale, grad_branch, sums, N, C, PER_IMAGE: tl.constexpr, T: tl.constexpr, D: tl.constexpr
):
    token, channel = tl.program_id(0) * T + tl.arange(0, T), tl.program_id(1) * D + tl.arange(0, D)
    image = tl.program_id(2).to(tl.int64)
    inside = (token < N)[:, None] & (channel < C)
    at = (image * N + token[:, None]) * C + channel
    g, x = tl.load(grad + at, inside, 0.0).to(tl.float32), tl.load(branch + at, inside, 0.0)
    by = tl.load(scale + (image * C if PER_IMAGE else 0) + channel, channel < C, 0.0)
    tl.store(grad_branch + at, (g * by).to(x.dtype), inside)
    to = sums + (image * tl.num_programs(0) + tl.program_id(0)) * C + channel
    tl.store(to, tl.sum(g * x.to(tl.float32), 0), channel < C)


def rotate(qkv: Tensor, angles: Tensor | None, places: Tensor, images: int) -> Tensor:
    """Copy ``(B, N, 3, heads, head_dim)`` to rows ``(B * N, 3, heads, head_dim)``, queries and keys rotated."""
    batch, tokens, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch * tokens, *qkv.shape[2:])
    if qkv.numel():
        grid, tile = _tiles(batch, tokens, heads * head_dim // 2, images)
        with _device_of(qkv):
            _rotate_kernel[grid](
                out, qkv, angles, places, batch, tokens, _side(angles), heads * head_dim // 2,
                **_flags(angles, head_dim), **tile,
            )  # fmt: skip
    return out


def unrotate(
    grad: Tensor, turn: Tensor | None, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, q: Tensor | None,
    k: Tensor | None, angles: Tensor | None, places: Tensor, images: int,
) -> None:  # fmt: skip
    """Fill ``grad``, the gradient of some tokens of ``qkv``, and ``turn``, the gradient of their angles, if given."""
    batch, tokens, _, heads, head_dim = grad.shape
    if grad.numel() == 0:
        return
    grid, tile = _tiles(batch, tokens, heads * head_dim // 2, images)
    if q is None or k is None:
        q, k = grad_q, grad_k
    strides = [stride for x in (grad_q, grad_k, grad_v, q, k) for stride in x.stride()[:3]]
    with _device_of(grad):
        _unrotate_kernel[grid](
            grad, turn, grad_q, grad_k, grad_v, q, k, angles, places,
            batch, tokens, grad_q.shape[2], tokens // grad_q.shape[2], _side(angles), heads * head_dim // 2,
            grad.stride(0), grad.stride(1), 0 if turn is None else turn.stride(0), *strides,
            LEARN=turn is not None, **_flags(angles, head_dim), **tile,
        )  # fmt: skip


def scale_gradients(grad: Tensor, branch: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``grad * scale``, and partial sums of ``grad * branch`` over ``TOKENS`` tokens, ``(B, sums, C)``."""
    batch, tokens, channels = branch.shape
    grad_branch = torch.empty_like(branch)
    sums = scale.new_empty(batch, sums_of(branch), channels)
    if branch.numel():
        grid = (sums_of(branch), triton.cdiv(channels, CHANNELS), batch)
        with _device_of(branch):
            _scale_kernel[grid](
                grad, branch, scale, grad_branch, sums, tokens, channels,
                PER_IMAGE=len(scale) > 1, T=TOKENS, D=CHANNELS,
            )  # fmt: skip
    return grad_branch, sums


def sums_of(branch: Tensor) -> int:
    """Return the number of partial sums per image."""
    return -(-branch.shape[1] // TOKENS)


def _tiles(batch: int, tokens: int, pairs: int, images: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    p = min(64, triton.next_power_of_2(pairs))
    t = TILE // p
    return (triton.cdiv(tokens, t), triton.cdiv(pairs, p), triton.cdiv(batch, images)), dict(IMAGES=images, T=t, P=p)


def _flags(angles: Tensor | None, head_dim: int) -> dict[str, int | bool]:
    shared = angles is not None and angles.shape[2] == 1
    return dict(HALF=head_dim // 2, SHARED=shared, ROTATE=angles is not None)


def _side(angles: Tensor | None) -> int:
    """Return how many columns and rows have angles; 0 without angles."""
    return 0 if angles is None else angles.shape[1]


def _device_of(x: Tensor) -> AbstractContextManager:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
