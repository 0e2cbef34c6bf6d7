"""Passes over memory in :mod:`.qkv` and :mod:`.block` that run as one Triton kernel each on CUDA.

The kernels are PyTorch operators, ``torch.ops.mmrope.*``, so fake tensors, counters and selective checkpointing see one
call each. The PyTorch code that runs without them is their definition; tests compare both in Triton's interpreter.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from .tracing import is_tracing, once_per_size, without_autocast
from .windows import Windows, window_order

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SCHEMAS = (
    'rotate(Tensor qkv, Tensor? angles, Tensor places, int images) -> Tensor',
    'unrotate(Tensor(a!) grad, Tensor(b!)? turn, Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor? q, Tensor? k, '
    'Tensor? angles, Tensor places, int images) -> ()',
    'scale_gradients(Tensor grad, Tensor branch, Tensor scale) -> (Tensor, Tensor)',
)
TILE, BUSY = 1024, 384  # angles per program, and the number of programs that keeps a GPU busy
_lock = Lock()


def take(x: Tensor) -> bool:
    """Return whether the kernels run on ``x``: on CUDA, in eager mode, in a dtype that they support."""
    return x.is_cuda and x.dtype in DTYPES and not is_tracing() and _has_operators()


def rotate(qkv: Tensor, angles: Tensor | None, windows: Windows, order: Windows | None, rows_in_order: bool) -> Tensor:
    """Run the forward pass of ``split_qkv``.

    Args:
        qkv: as for ``split_qkv``.
        angles: as for ``split_qkv``.
        windows: as for ``split_qkv``.
        order: as for ``split_qkv``.
        rows_in_order: whether to store the new rows in the order of the tokens, instead of group by group.

    Returns:
        Rows ``(B * N, 3, heads, head_dim)``.
    """
    angles = None if angles is None else angles.float().contiguous()
    prefix = qkv.shape[1] - windows.grid[0] * windows.grid[1]
    places = once_per_size(_places, windows, order, prefix, rows_in_order, like=qkv)
    return _operators().rotate(qkv.contiguous(), angles, places, _images(qkv.shape))


def unrotate(
    shape: torch.Size,
    angles: Tensor | None,
    windows: Windows,
    order: Windows | None,
    grads: Sequence[Sequence[Tensor]],
    outs: Sequence[Sequence[Tensor]],
) -> tuple[Tensor, Tensor | None]:
    """Run the backward pass of ``split_qkv``.

    Args:
        shape: shape of ``qkv``.
        angles: as in the forward pass.
        windows: as in the forward pass.
        order: as in the forward pass.
        grads: gradients of queries, keys and values, ``(B * count, heads, tokens, head_dim)``, for each group; packed
            windows count as one group.
        outs: rotated queries and keys, and values, shaped as ``grads``; empty if the angles need no gradient.

    Returns:
        The gradient of ``qkv``, and the gradient of ``angles`` if ``outs`` is given.
    """
    grad = grads[0][0].new_empty(shape)
    turn: Tensor | None = None
    images, pairs = _images(shape), shape[3] * shape[4] // 2
    if outs:
        make = torch.zeros if grad.numel() == 0 else torch.empty
        turn = make(-(-shape[0] // images), shape[1], pairs, dtype=torch.float32, device=grad.device)
    prefix = shape[1] - windows.grid[0] * windows.grid[1]
    places = once_per_size(_places, windows, order, prefix, True, like=grad)
    tables = None if angles is None else angles.float().contiguous()
    start = 0
    for i, back in enumerate(grads):
        stop = start + back[0].shape[0] * back[0].shape[2] // max(1, shape[0]) if len(grads) > 1 else shape[1]
        back = [x if x.stride(-1) == 1 else x.contiguous() for x in back]
        part = None if turn is None else turn[:, start:stop]
        turned = outs[i][:2] if outs else (None, None)
        _operators().unrotate(grad[:, start:stop], part, *back, *turned, tables, places[0, start:stop], images)
        start = stop
    return grad, None if turn is None or angles is None else _sum_of_axes(turn, angles, windows, order, prefix)


def scale_gradients(grad: Tensor, branch: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of ``branch`` and ``scale`` in ``x + branch * scale``.

    Args:
        grad: gradient of the sum, ``(B, N, C)``.
        branch: ``(B, N, C)``.
        scale: ``(C,)`` or ``(B or 1, 1, C)``.
    """
    rows = scale.reshape(-1, 1, scale.shape[-1])
    grad_branch, sums = _operators().scale_gradients(grad.contiguous(), branch.contiguous(), rows.float().contiguous())
    return grad_branch, sums.sum(1, keepdim=True).sum_to_size(rows.shape).view(scale.shape).to(scale.dtype)


def _sum_of_axes(turn: Tensor, angles: Tensor, windows: Windows, order: Windows | None, prefix: int) -> Tensor:
    """Sum the gradients of the tokens' angles, ``(chunks, N, pairs)``, over each column and each row."""
    turn = turn[0] if len(turn) == 1 else turn.sum(0)
    of_axes = once_per_size(_tokens_of_axes, windows, order, prefix, like=turn)
    with without_autocast(turn.device):
        grad = of_axes @ turn
    grad = grad.view(*angles.shape[:2], -1, angles.shape[3])
    return grad.sum_to_size(angles.shape).to(angles.dtype)


def _images(shape: torch.Size) -> int:
    """Return how many images share the angles of one program: up to 8, as long as that keeps a GPU busy."""
    programs, images = shape[1] * shape[3] * shape[4] // 2 // TILE, min(8, max(1, shape[0]))
    while images > 1 and programs * -(-shape[0] // images) < BUSY:
        images -= 1
    return images


def _places(windows: Windows, order: Windows | None, prefix: int, rows_in_order: bool, device: torch.device) -> Tensor:
    """Return each token's place in its window, and the first token and the length of its group, ``(3, N)``, int32.

    A place is ``row << 16 | column``, or -1 for a prefix token. Rows in the order of the tokens form one group.
    """
    parts = [torch.full((prefix,), -1, device=device)]
    firsts: list[int] = []
    lengths: list[int] = []
    for count, height, width in windows.groups:
        rows, cols = (torch.arange(size, device=device) for size in (height, width))
        parts.append((rows[:, None] << 16 | cols).flatten().repeat(count))
        firsts.append(sum(lengths))
        lengths.append(count * height * width)
    if order is not None and order != windows:
        parts[1] = parts[1][window_order(order, device)]
    places = torch.cat(parts)
    if rows_in_order:
        firsts, lengths = [0], [len(places)]
    repeats = torch.tensor(lengths, device=device)
    first, length = (torch.tensor(x, device=device).repeat_interleave(repeats, output_size=len(places))
                     for x in (firsts, lengths))  # fmt: skip
    return torch.stack((places, first, length)).to(torch.int32)


def _tokens_of_axes(windows: Windows, order: Windows | None, prefix: int, device: torch.device) -> Tensor:
    """Mark the tokens of each column, then of each row, of the largest window with 1, ``(2 * max(h, w), N)``."""
    places = _places(windows, order, prefix, True, device)[0]
    indexes = torch.arange(max(windows.largest), device=device)[:, None]
    return torch.cat((indexes == places & 0xFFFF, indexes == places >> 16)).float()


def _operators() -> Any:
    return torch.ops.mmrope


def _has_operators() -> bool:
    with _lock:  # threads may ask at once, but an operator can be defined only once
        return _library() is not None


@cache
def _library() -> torch.library.Library | None:
    """Define the operators; ``None`` where Triton is not installed."""
    if find_spec('triton') is None:
        return None
    library = torch.library.Library('mmrope', 'FRAGMENT')
    triton_kernels = import_module('.triton_kernels', __package__)
    for schema in SCHEMAS:
        name = schema.partition('(')[0]
        library.define(schema)
        for device in triton_kernels.DEVICES:
            library.impl(name, getattr(triton_kernels, name), device)
    fakes: dict[str, Callable[..., Any]] = dict(
        rotate=lambda qkv, *_: qkv.new_empty(qkv.flatten(0, 1).shape),
        unrotate=lambda *_: None,
        scale_gradients=lambda grad, branch, scale: (
            torch.empty_like(branch),
            scale.new_empty(len(branch), triton_kernels.sums_of(branch), branch.shape[2]),
        ),
    )
    for name, fake in fakes.items():
        torch.library.register_fake(f'mmrope::{name}', fake, lib=library)
    return library
