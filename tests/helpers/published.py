"""Random weights with the names and shapes of the published ones, written down from their lists, and whole files."""

import io
import math

import torch
from torch import Tensor

VIT_SIZES = {'small': (384, 12, 6), 'base': (768, 12, 12), 'large': (1024, 24, 16)}  # channels, blocks, heads
SWIN_SIZES = {
    'tiny': (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'small': (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'base': (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}


def draw(*shape: int) -> Tensor:
    return torch.empty(shape).uniform_(-0.05, 0.05)


def linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {f'{name}.weight': draw(outputs, inputs), f'{name}.bias': draw(outputs)}


def norm(name: str, dim: int) -> dict[str, Tensor]:
    return {f'{name}.weight': 1 + draw(dim), f'{name}.bias': draw(dim)}


def block(name: str, dim: int) -> dict[str, Tensor]:
    return {
        **norm(f'{name}.norm1', dim),
        **linear(f'{name}.attn.qkv', dim, 3 * dim),
        **linear(f'{name}.attn.proj', dim, dim),
        **norm(f'{name}.norm2', dim),
        **linear(f'{name}.mlp.fc1', dim, 4 * dim),
        **linear(f'{name}.mlp.fc2', 4 * dim, dim),
    }


def vit(size: str, rope: str | None = 'mixed', ape: bool = False, depth: int | None = None) -> dict[str, Tensor]:
    """A ViT as its authors publish it; ``depth`` for fewer blocks."""
    dim, blocks, heads = VIT_SIZES[size]
    blocks = depth or blocks
    state = {'cls_token': draw(1, 1, dim), 'patch_embed.proj.weight': draw(dim, 3, 16, 16)}
    state['patch_embed.proj.bias'] = draw(dim)
    for i in range(blocks):
        state |= {f'blocks.{i}.gamma_1': draw(dim), f'blocks.{i}.gamma_2': draw(dim), **block(f'blocks.{i}', dim)}
    if rope == 'mixed':
        state |= {
            'freqs': torch.rand(2, blocks, dim // 2, device='cpu'),
            'freqs_t_x': draw(196),
            'freqs_t_y': draw(196),
        }
    if ape:
        state['pos_embed'] = draw(1, 196, dim)
    return {**state, **norm('norm', dim), **linear('head', dim, 1000)}


def swin_freqs(rope: str, heads: int) -> Tensor:
    """Frequencies of a block of a Swin, by the authors' formula; those of RoPE-Mixed are learned from there."""
    theta, turn = (50.0, torch.zeros(heads, 1)) if rope == 'axial' else (10.0, torch.rand(heads, 1) * 2 * math.pi)
    magnitudes = 1 / theta ** (torch.arange(0, 32, 4)[:8].float() / 32)
    x = torch.cat([magnitudes * torch.cos(turn), magnitudes * torch.cos(math.pi / 2 + turn)], dim=-1)
    y = torch.cat([magnitudes * torch.sin(turn), magnitudes * torch.sin(math.pi / 2 + turn)], dim=-1)
    return torch.stack([x, y])  # (2, heads, 16)


def swin(size: str, rope: str | None = 'mixed', rpb: bool = False) -> dict[str, Tensor]:
    """A Swin as RoPE-ViT's authors publish it, or Microsoft's: without RoPE, with a bias table."""
    dim, depths, heads = SWIN_SIZES[size]
    state = {'patch_embed.proj.weight': draw(dim, 3, 4, 4), 'patch_embed.proj.bias': draw(dim)}
    state |= norm('patch_embed.norm', dim)
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f'layers.{i}.blocks.{j}'
            state |= block(name, dim * 2**i)
            if rope:
                state[f'{name}.attn.rope_freqs'] = swin_freqs(rope, heads[i])
                state |= {f'{name}.attn.rope_t_{axis}': torch.zeros(49) for axis in 'xy'}
            if rpb:
                state[f'{name}.attn.relative_position_bias_table'] = draw(169, heads[i])
                state[f'{name}.attn.relative_position_index'] = torch.zeros(49, 49, dtype=torch.long)
            if j % 2 and i < 3:
                state[f'{name}.attn_mask'] = torch.zeros(4, 49, 49)
        if i < 3:
            state[f'layers.{i}.downsample.reduction.weight'] = draw(dim * 2 ** (i + 1), dim * 2 ** (i + 2))
            state |= norm(f'layers.{i}.downsample.norm', dim * 2 ** (i + 2))
    return {**state, **norm('norm', dim * 8), **linear('head', dim * 8, 1000)}


def as_file(state: dict[str, Tensor]) -> bytes:
    """The content of ``pytorch_model.bin``."""
    file = io.BytesIO()
    torch.save({'model': state}, file)
    return file.getvalue()
