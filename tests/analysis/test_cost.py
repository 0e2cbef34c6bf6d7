"""Counts against formulas worked out by hand."""

import pytest
import torch
from torch import nn

from mmrope import RoPESwin, RoPEViT
from mmrope.analysis.cost import Cost, count
from mmrope.models import EoMT


class Model(nn.Module):
    """A model with a backbone, as in the hosts."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.backbone(inputs)


def count_of(backbone: nn.Module, height: int, width: int, batch: int = 1) -> Cost:
    return count(Model(backbone).eval(), dict(inputs=torch.randn(batch, 3, height, width)))


def of_block(tokens: int, windows: list[int], dim: int) -> int:
    """Multiply-adds of a block: qkv, attention in windows of so many tokens, projection, MLP of ratio 4."""
    assert sum(windows) == tokens
    attention = sum(2 * n * n * dim for n in windows)  # q k^T, and weights times v
    return tokens * dim * (3 * dim + dim + 4 * dim + 4 * dim) + attention


def test_a_global_vit_with_a_cls_token() -> None:
    model = RoPEViT(arch=dict(embed_dims=24, depth=3, num_heads=2), patch_size=8, with_cls_token=True)
    cost = count_of(model, 40, 56, batch=2)
    patches = 5 * 7
    macs = 2 * (patches * 3 * 8 * 8 * 24 + 3 * of_block(patches + 1, [patches + 1], 24))
    assert cost.flops == dict(backbone=2 * macs, neck=0, heads=0, total=2 * macs)
    assert cost.params['total'] == cost.params['backbone'] == sum(p.numel() for p in model.parameters())
    # a pair (a, b) becomes (a cos - b sin, a sin + b cos): 6 FLOPs, for 12 pairs of q and 12 of k
    assert cost.rotation_flops == 3 * 2 * patches * (12 + 12) * 6
    # by axis an angle, its cosine and sine for each of 2 heads x 6 pairs; then a rotation for each token
    assert cost.table_flops == 3 * ((5 + 7) * 12 * 3 + 5 * 7 * 12 * 6)
    assert cost.rotation_share == cost.rotation_flops / (2 * macs + cost.rotation_flops)
    assert cost.size == (40, 56)


@pytest.mark.parametrize('rope, factor', [('axial', 1), (None, 0)])
def test_windows_count_by_their_real_sizes(rope: str | None, factor: int) -> None:
    arch = dict(embed_dims=24, depth=2, num_heads=2, mlp_ratio=4)
    model = RoPEViT(arch=arch, patch_size=8, rope=rope, window_size=3, global_attn_indexes=(1,))
    cost = count_of(model, 40, 56)
    windows = [3 * 3, 3 * 2, 3 * 2, 2 * 3, 2 * 2, 2 * 2]  # 5 x 7 tokens: rows 3 2, columns 3 2 2
    macs = 35 * 3 * 8 * 8 * 24 + of_block(35, windows, 24) + of_block(35, [35], 24)
    assert cost.flops['total'] == 2 * macs
    assert cost.rotation_flops == factor * 2 * 35 * 24 * 6
    # axial: one set of 6 pairs for all heads; a windowed block has the table of its largest window
    assert cost.table_flops == factor * 6 * ((3 + 3) * 3 + 9 * 6 + (5 + 7) * 3 + 35 * 6)


def test_a_swin_with_shifted_windows_and_a_bias() -> None:
    model = RoPESwin(
        arch=dict(embed_dims=8, depths=(2, 1), num_heads=(2, 2)),
        patch_size=2,
        window_size=4,
        rpb=True,
        out_indices=(1,),
    )
    cost = count_of(model, 12, 18)  # tokens: 6 x 9, then 3 x 5
    plain = [h * w for h in (4, 2) for w in (4, 4, 1)]
    shifted = [h * w for h in (2, 4) for w in (2, 4, 3)]
    macs = 54 * 3 * 2 * 2 * 8 + of_block(54, plain, 8) + of_block(54, shifted, 8)
    macs += 15 * 32 * 16 + of_block(15, [12, 3], 16)
    assert cost.flops['total'] == 2 * macs
    assert cost.rotation_flops == 6 * (2 * 54 * 8 + 15 * 16)


def test_windows_with_prefix_tokens_count_what_attends() -> None:
    arch = dict(embed_dims=24, depth=2, num_heads=2, mlp_ratio=4)
    tokens = dict(with_cls_token=True, num_registers=2, window_size=3, global_attn_indexes=(1,))
    cost = count_of(RoPEViT(arch=arch, patch_size=8, rope='axial', **tokens), 40, 56)
    pairs = 3 * 38 + sum(n * (3 + n) for n in (9, 6, 6, 6, 4, 4))  # the prefix sees everything
    linear = 38 * 24 * 12 * 24
    macs = 35 * 3 * 8 * 8 * 24 + 2 * linear + 2 * 24 * (pairs + 38 * 38)
    assert cost.flops['total'] == 2 * macs
    assert cost.rotation_flops == 2 * 35 * 24 * 6
    assert cost.table_flops == 2 * 6 * ((5 + 7) * 3 + 35 * 6)  # of the whole grid in both


class Segmenter(Model):
    """A backbone whose last blocks a head runs."""

    def __init__(self, backbone: nn.Module, head: EoMT) -> None:
        super().__init__(backbone)
        self.decode_head = head

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.decode_head(self.backbone(inputs)[-1])[-1].masks


def test_open_blocks_count_as_the_backbones_with_the_queries_of_the_head() -> None:
    arch = dict(embed_dims=24, depth=3, num_heads=2, mlp_ratio=4)
    settings = dict(final_norm=True, out_indices=(), open_blocks=2, with_cls_token=True)
    model = Segmenter(RoPEViT(arch, patch_size=8, rope='axial', **settings), EoMT(24, 3, 4, 2, 8)).eval()
    cost = count(model, dict(inputs=torch.randn(1, 3, 40, 56)))
    macs = 35 * 3 * 8 * 8 * 24 + of_block(36, [36], 24) + 2 * of_block(40, [40], 24)
    assert cost.flops['backbone'] == 2 * macs
    upscale = 35 * 24 * 24 * 4 + 4 * 35 * 24 * 9  # 2 x 2 pixels for each token, then 3 x 3 depthwise
    head = 4 * 24 * 4 + 3 * 4 * 24 * 24 + upscale + 4 * 24 * 4 * 35
    assert cost.flops['heads'] == 2 * head and cost.flops['total'] == 2 * (macs + head)
    assert cost.params['backbone'] + cost.params['heads'] == cost.params['total']
    assert cost.rotation_flops == 3 * 35 * 24 * 6, 'queries are not rotated'
