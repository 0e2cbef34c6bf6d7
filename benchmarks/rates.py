"""FLOP/s of the bottlenecks of a ViT-B, fused attention and matrix products: ``python benchmarks/rates.py``.

Measured with one image, 12 heads of 64 channels, inference in float32; a multiply-add counts as two FLOPs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

DIMS, HEADS = 768, 12
SHAPES = dict(qkv=(3 * DIMS, DIMS), proj=(DIMS, DIMS), fc1=(4 * DIMS, DIMS), fc2=(DIMS, 4 * DIMS))


def measure(function: Callable, inputs: list[tuple], flops: int) -> str:
    """Call ``function`` on all ``inputs`` in turn; return the median seconds and GFLOP/s as table cells."""
    timer = Timer('for i in inputs: function(*i)', globals=locals(), num_threads=torch.get_num_threads())
    seconds = timer.blocked_autorange(min_run_time=2).median
    return f'{seconds:.4f} | {flops / seconds / 1e9:.0f}'


@torch.no_grad()
def main() -> None:
    """Print a table for the grids of images of 512 to 2048 pixels."""
    print('| tokens | attention, s | GFLOP/s | matrix products, s | GFLOP/s |\n| ---: | ---: | ---: | ---: | ---: |')
    weights = [torch.randn(shape) for shape in SHAPES.values()]
    for tokens in (1024, 2116, 4096, 8281, 16384):
        qkv = torch.randn(3, 1, HEADS, tokens, DIMS // HEADS)
        attention = measure(F.scaled_dot_product_attention, [tuple(qkv)], 4 * DIMS * tokens**2)
        layers = [(torch.randn(tokens, weight.shape[1]), weight) for weight in weights]
        products = measure(F.linear, layers, 24 * DIMS**2 * tokens)
        print(f'| {tokens:,} | {attention} | {products} |', flush=True)


if __name__ == '__main__':
    main()
