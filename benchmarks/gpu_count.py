"""Launches and bytes of a step on a GPU, counted on fake tensors: ``python benchmarks/gpu_count.py [ROW ...]``.

Nothing is measured. The time is estimated from the counts, kernel by kernel, as the largest of: bytes read and written
over 3.0 TB/s, which a copy reaches on an H100; FLOPs over 600 TFLOP/s for matrix products, or over 400 and 300 TFLOP/s
for attention, forward and backward, with lengths rounded up to its tiles of 128; and 2 microseconds.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from fake_cuda import run
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mmrope import RoPESwin, RoPEViT

BANDWIDTH, SHORTEST = 3.0e12, 2e-6
PRODUCTS, PRODUCTS_FLOAT32, ATTENTION, ATTENTION_BACKWARD = 600e12, 50e12, 400e12, 300e12
FREE = ('prim.', 'aten.promote_types', 'aten.empty', 'aten.new_empty', 'aten.detach')
FILLS = ('aten.zeros', 'aten.ones', 'aten.fill', 'aten.new_ones', 'aten.new_zeros', 'aten.zero', 'aten.full')
WINDOWS = dict(window_size=14, global_attn_indexes=(2, 5, 8, 11))
ROWS = dict(
    vit_windows=(lambda arch='base', **kw: RoPEViT(arch, drop_path_rate=0.1, **WINDOWS, **kw), (8, 3, 1024, 1024)),
    vit_global=(lambda arch='base', **kw: RoPEViT(arch, drop_path_rate=0.1, **kw), (8, 3, 1024, 1024)),
    swin=(lambda arch='tiny', **kw: RoPESwin(arch, **kw), (8, 3, 800, 1333)),
    swin_batch_2=(lambda arch='tiny', **kw: RoPESwin(arch, **kw), (2, 3, 800, 1333)),
)


@dataclass
class Count:
    """Total cost of operators; a call adds one operator.

    Attributes:
        launches: kernels launched, one per operator except for those known to launch more.
        bytes: bytes read and written.
        seconds: estimated time, see the module.
        by_operator: launches of each operator.
    """

    launches: int = 0
    bytes: int = 0
    seconds: float = 0.0
    by_operator: dict[str, int] = field(default_factory=dict)

    def __call__(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """Add the cost of an operator."""
        name = str(func)
        ins, outs = ([x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)] for tree in ((args, kwargs), out))
        if name.startswith(FREE) or _is_view(func, ins, outs):
            return
        moved, (seconds, launches) = _bytes(name, ins, outs, kwargs), _work(name, args, outs)
        self.launches += launches
        self.bytes += moved
        self.seconds += max(moved / BANDWIDTH, seconds, SHORTEST)
        self.by_operator[name] = self.by_operator.get(name, 0) + launches


def _is_view(func: Any, ins: list[Tensor], outs: list[Tensor]) -> bool:
    storages = {x.untyped_storage()._cdata for x in ins}
    return not func._schema.is_mutable and bool(outs) and all(x.untyped_storage()._cdata in storages for x in outs)


def _bytes(name: str, ins: list[Tensor], outs: list[Tensor], kwargs: dict) -> int:
    if name.startswith(FILLS):
        ins = []
    if name.startswith('aten.copy_'):
        return _size(ins[0]) + _size(ins[1])
    if 'convolution_backward' in name:  # images need no gradient
        outs = outs[1:]
    return sum(map(_size, ins)) + sum(map(_size, outs)) - (_size(kwargs['out']) if 'out' in kwargs else 0)


def _size(x: Tensor) -> int:
    """Count the bytes that a pass over ``x`` touches; an expanded axis counts once."""
    numbers = 1
    for side, stride in zip(x.shape, x.stride()):
        numbers *= side if stride else 1
    return numbers * x.dtype.itemsize


def _work(name: str, args: tuple, outs: list[Tensor]) -> tuple[float, int]:
    """Return the seconds of arithmetic and the number of launches."""
    back = 'backward' in name
    if name.startswith(('aten.mm', 'aten.addmm', 'aten.bmm')):
        a, b = args[1:3] if name.startswith('aten.addmm') else args[:2]
        flops = 2 * a.numel() * b.shape[-1]
        return flops / (PRODUCTS if a.dtype != torch.float32 else PRODUCTS_FLOAT32), 1
    if 'scaled_dot_product' in name:
        q = args[1] if back else args[0]
        flops = 4 * q.shape[0] * q.shape[1] * _in_tiles(q.shape[2]) ** 2 * q.shape[3]
        return (2.5 * flops / ATTENTION_BACKWARD, 4) if back else (flops / ATTENTION, 1)
    if '_varlen_attn' in name:
        q, longest = (args[1], args[8]) if back else (args[0], args[5])
        flops = 4 * q.shape[0] * q.shape[1] * q.shape[2] * _in_tiles(longest)
        return (2.5 * flops / ATTENTION_BACKWARD, 4) if back else (flops / ATTENTION, 1)
    if 'convolution' in name:
        weight = args[2] if back else args[1]
        return 2 * (args[0] if back else outs[0]).numel() * weight[0].numel() / PRODUCTS, 1
    return 0.0, 3 if 'native_layer_norm_backward' in name else 1


def _in_tiles(length: int) -> int:
    return -(-length // 128) * 128


def count(build: Callable[[], nn.Module], shape: tuple[int, ...], training: bool = True) -> Count:
    """Count a step in bfloat16 autocast on images of ``shape``."""
    counted = Count()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run(build, shape, torch.bfloat16, training, counted)
    return counted


def main() -> None:
    """Print a row for each backbone, mode and kind of rotation."""
    parser = argparse.ArgumentParser(description='Count the launches and bytes of a step on a GPU, on fake tensors.')
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'rows to count, of {", ".join(ROWS)} (default: all)')
    rows = parser.parse_args().rows
    if unknown := sorted(set(rows) - set(ROWS)):
        parser.error(f'ROW must be one of {", ".join(ROWS)}, got {unknown[0]}')
    print('| row | images | | launches | GB | ms, estimated | x without |')
    print('| --- | --- | --- | ---: | ---: | ---: | ---: |')
    for name in rows or ROWS:
        build, shape = ROWS[name]
        for training in (True, False):
            base = None
            for rope in (None, 'axial', 'mixed'):
                counted = count(partial(build, rope=rope), shape, training)
                base = base or counted
                cells = [
                    f'{name}, rope={rope!r}', ' x '.join(map(str, (shape[0], *shape[2:]))),
                    'training' if training else 'inference', f'{counted.launches:,}', f'{counted.bytes / 1e9:.1f}',
                    f'{1e3 * counted.seconds:.2f}', f'{counted.seconds / base.seconds:.3f}',
                ]  # fmt: skip
                print('|', ' | '.join(cells), '|', flush=True)


if __name__ == '__main__':
    main()
