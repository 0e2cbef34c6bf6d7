"""ViTDet-style vision transformer with rotary position embedding."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from timm.layers import DropPath, Mlp, PatchEmbed, to_2tuple, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import Attention, even_windows, resize_pos_embed
from ..registry import MODELS

ARCHS = {
    'tiny': dict(embed_dims=128, depth=6, num_heads=4),
    'small': dict(embed_dims=384, depth=12, num_heads=6),
    'base': dict(embed_dims=768, depth=12, num_heads=12),
    'large': dict(embed_dims=1024, depth=24, num_heads=16),
}
THETAS = {'mixed': 10.0, 'axial': 100.0, None: None}


class Block(nn.Module):
    """Transformer block with LayerScale: attention, global or in windows, and an MLP.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP over ``dim``.
        rope: ``'mixed'``, ``'axial'`` or ``None``.
        theta: base of the frequencies.
        window_size: largest extent of a window in tokens; 0 for global attention.
        layer_scale_init_value: what LayerScale starts at; ``None`` for a block without it.
        drop_path_rate: probability to drop a branch for a sample.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        rope: str | None,
        theta: float | None,
        window_size: int,
        layer_scale_init_value: float | None,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, rope, theta)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)
        for name in ('gamma_1', 'gamma_2'):
            gamma = None if layer_scale_init_value is None else torch.full((dim,), float(layer_scale_init_value))
            self.register_parameter(name, None if gamma is None else nn.Parameter(gamma))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """``x``: tokens, ``(B, P + H * W, C)``; ``grid``: ``(H, W)``. Returns tokens of the same shape."""
        windows = even_windows(grid, self.window_size) if self.window_size else None
        x = x + self.drop_path(_scale(self.attn(self.norm1(x), grid, windows), self.gamma_1))
        return x + self.drop_path(_scale(self.mlp(self.norm2(x)), self.gamma_2))


@MODELS.register_module()
class RoPEViT(BaseModule):
    """Vision transformer with 2D rotary position embedding, for any size of image.

    The model of Heo et al., *Rotary Position Embedding for Vision Transformer* (ECCV 2024, arXiv 2403.13298), a
    DeiT-III ViT, with the windowed blocks of Li et al., *Exploring Plain Vision Transformer Backbones for Object
    Detection* (ECCV 2022, arXiv 2203.16527). Windows are cut to fit the grid: none holds padding.

    Args:
        arch: ``'tiny'`` (for experiments), ``'small'``, ``'base'``, ``'large'``, or a dict of ``embed_dims``,
            ``depth``, ``num_heads`` and optionally ``mlp_ratio`` (4).
        img_size: the image size ``pos_embed`` was learned at, in pixels, one number or ``(H, W)``; nothing else
            depends on it.
        patch_size: side of a patch, in pixels; the stride of the output.
        in_channels: channels of the image.
        rope: ``'mixed'``, ``'axial'`` or ``None``.
        rope_theta: base of the frequencies; ``None`` for the paper's value (mixed 10, axial 100).
        ape: whether to add a learned absolute position embedding.
        window_size: largest extent of an attention window, in tokens; 0 for global attention everywhere.
        global_attn_indexes: blocks with global attention where ``window_size`` is not 0; negative ones count from the
            end.
        out_indices: blocks whose output is returned; negative ones count from the end.
        with_cls_token: whether a cls token attends along. It needs global attention in every block.
        layer_scale_init_value: what LayerScale starts at; ``None`` for a model without it.
        drop_path_rate: drop path of the last block; it rises linearly from 0 at the first.
        final_norm: whether the output of the last block is normalised.
        frozen_stages: blocks to freeze from the first on, besides the embeddings: 0 freezes the embeddings alone, -1
            nothing.
        with_cp: whether to recompute each block in the backward pass, to save memory.
        init_cfg: how to initialise, as MMEngine has it.

    Raises:
        ValueError: if an argument is out of range; the message names it, its value and what is allowed.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        rope: str | None = 'mixed',
        rope_theta: float | None = None,
        ape: bool = False,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
        out_indices: Sequence[int] = (-1,),
        with_cls_token: bool = False,
        layer_scale_init_value: float | None = 1e-4,
        drop_path_rate: float = 0.0,
        final_norm: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = _arch_settings(arch)
        self.embed_dims, depth = settings['embed_dims'], settings['depth']
        if rope not in THETAS:
            raise ValueError(f"rope must be 'mixed', 'axial' or None, but got {rope!r}")
        if rope is None and rope_theta is not None:
            raise ValueError(f'rope_theta must be None where rope is None, but got {rope_theta}')
        if window_size < 0:
            raise ValueError(f'window_size must be at least 0 (0: global attention), but got {window_size}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be at least 0 and below 1, but got {drop_path_rate}')
        if not -1 <= frozen_stages <= depth:
            raise ValueError(f'frozen_stages must be between -1 and {depth} (the depth), but got {frozen_stages}')
        for name, value in (('img_size', img_size), ('patch_size', patch_size), ('in_channels', in_channels)):
            if min(to_2tuple(value)) < 1:
                raise ValueError(f'{name} must be at least 1, but got {value}')
        global_blocks = _block_indexes('global_attn_indexes', global_attn_indexes, depth) if window_size else range(depth)
        if with_cls_token and len(global_blocks) < depth:
            raise ValueError(
                f'with_cls_token needs global attention in every block, but got window_size = {window_size} '
                f'with global_attn_indexes = {tuple(global_attn_indexes)}; set window_size = 0 or with_cls_token = False'
            )
        self.out_indices = _block_indexes('out_indices', out_indices, depth)
        if not self.out_indices:
            raise ValueError(f'out_indices must name at least one block, but got {out_indices}')
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        self.patch_embed = PatchEmbed(
            None, patch_size, in_channels, self.embed_dims, flatten=False, dynamic_img_pad=True
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims)) if with_cls_token else None
        self.pos_grid = tuple(-(-side // patch_size) for side in to_2tuple(img_size))
        num_positions = self.pos_grid[0] * self.pos_grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, self.embed_dims)) if ape else None
        self.blocks = nn.ModuleList(
            Block(
                self.embed_dims,
                settings['num_heads'],
                settings['mlp_ratio'],
                rope,
                THETAS[rope] if rope_theta is None else rope_theta,
                0 if i in global_blocks else window_size,
                layer_scale_init_value,
                drop_path_rate * i / max(depth - 1, 1),
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(self.embed_dims, eps=1e-6) if final_norm else None
        self._init_parameters()
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the blocks ``out_indices``.

        Args:
            x: images, ``(B, in_channels, H, W)``, padded here to a multiple of the patch at the bottom and right.

        Returns:
            One ``(B, embed_dims, ceil(H / patch_size), ceil(W / patch_size))`` for each of ``out_indices``.

        Raises:
            ValueError: if ``x`` has another number of axes or channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f'x must be (B, {self.in_channels}, H, W) images, but got shape {tuple(x.shape)}')
        x = self.patch_embed(x)
        grid = tuple(x.shape[-2:])
        x = self._add_embeddings(x.flatten(2).transpose(1, 2), grid)
        outs = []
        for i, block in enumerate(self.blocks):
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
            if i in self.out_indices:
                outs.append(self._to_map(x if i < len(self.blocks) - 1 or self.norm is None else self.norm(x), grid))
        return tuple(outs)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: name of the parameter, ``prefix`` included.
            prefix: what the name of every parameter of this backbone starts with, ``'backbone.'`` within a detector.

        Returns:
            The depth of its layer, and how many depths there are: 0 for the embeddings, ``i + 1`` for block ``i``,
            the last for what follows the blocks and for parameters of other modules.
        """
        num_layers = len(self.blocks) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        parts = param_name[len(prefix) :].split('.')
        if parts[0] in ('patch_embed', 'cls_token', 'pos_embed'):
            return 0, num_layers
        if parts[0] == 'blocks':
            return int(parts[1]) + 1, num_layers
        return num_layers - 1, num_layers

    def train(self, mode: bool = True) -> 'RoPEViT':
        super().train(mode)
        self._freeze_stages()
        return self

    def _add_embeddings(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.pos_embed is not None:
            x = x + resize_pos_embed(self.pos_embed, self.pos_grid, grid)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        return x  # (B, P + H * W, C)

    def _to_map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return x[:, x.shape[1] - grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)  # (B, C, H, W)

    def _init_parameters(self) -> None:
        """As DeiT-III: truncated normal, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for embedding in (self.cls_token, self.pos_embed):
            if embedding is not None:
                trunc_normal_(embedding, std=0.02)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.patch_embed, *self.blocks[: self.frozen_stages]]
        if self.norm is not None and self.frozen_stages == len(self.blocks):
            frozen.append(self.norm)
        for module in frozen:
            module.eval().requires_grad_(False)
        for embedding in (self.cls_token, self.pos_embed):
            if embedding is not None:
                embedding.requires_grad_(False)


def _scale(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


def _arch_settings(arch: str | dict) -> dict:
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch must be one of {", ".join(ARCHS)} or a dict, but got {arch!r}')
        arch = ARCHS[arch]
    required, allowed = {'embed_dims', 'depth', 'num_heads'}, {'embed_dims', 'depth', 'num_heads', 'mlp_ratio'}
    if not required <= set(arch) <= allowed:
        raise ValueError(f'arch must have embed_dims, depth, num_heads and may have mlp_ratio, but got {dict(arch)}')
    settings = {'mlp_ratio': 4, **arch}
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f'{name} of arch must be positive, but got {value}')
    return settings


def _block_indexes(name: str, indexes: Sequence[int], depth: int) -> tuple[int, ...]:
    """Indexes as non-negative numbers, in order."""
    for index in indexes:
        if not -depth <= index < depth:
            raise ValueError(f'{name} must be between {-depth} and {depth - 1} (depth {depth}), but got {tuple(indexes)}')
    normal = tuple(sorted(index % depth for index in indexes))
    if len(set(normal)) < len(normal):
        raise ValueError(f'{name} must not repeat a block, but got {tuple(indexes)} at depth {depth}')
    return normal
