"""ViTDet-style vision transformer with rotary position embedding."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from timm.layers import PatchEmbed, trunc_normal_
from torch import Tensor, nn

from ..layers import Block, Windows, even_windows, one_window, reorder, resize_pos_embed
from ..layers.block import MLPS, NORMS
from ..layers.position import RESIZES
from ..layers.windows import Grid
from ..registry import MODELS
from .arguments import (
    arch_settings,
    check_at_least,
    check_choice,
    check_drop_path_rate,
    check_frozen_stages,
    check_images,
    check_open_blocks,
    grid_of,
    indexes_in_order,
    positions_of,
    theta_of,
)
from .backbone import Backbone, constant_size, to_map
from .open_tokens import OpenTokens

ARCHS = {
    'tiny': dict(embed_dims=128, depth=6, num_heads=4),
    'small': dict(embed_dims=384, depth=12, num_heads=6),
    'base': dict(embed_dims=768, depth=12, num_heads=12),
    'large': dict(embed_dims=1024, depth=24, num_heads=16),
}
THETAS = {'mixed': 10.0, 'axial': 100.0}


@MODELS.register_module()
class RoPEViT(Backbone):
    """Vision transformer with 2D rotary position embedding, for images of any size.

    The model of Heo et al., *Rotary Position Embedding for Vision Transformer* (ECCV 2024, arXiv 2403.13298), a
    DeiT-III ViT, with the windowed blocks of Li et al., *Exploring Plain Vision Transformer Backbones for Object
    Detection* (ECCV 2022, arXiv 2203.16527). Windows are cut to fit the grid, so none holds padding. Prefix tokens
    (cls, registers) attend to all tokens in every block, and a window to them and itself.

    What other families of ViTs with RoPE need follows ``init_cfg``; :mod:`mmrope.models.families` sets it for them.

    Args:
        arch: ``'tiny'`` (for experiments), ``'small'``, ``'base'``, ``'large'``, or a dict with
            ``embed_dims``, ``depth``, ``num_heads`` and optionally ``mlp_ratio`` (default 4).
        img_size: image size that ``pos_embed`` was learned at, in pixels, one number or ``(H, W)``; nothing else
            depends on it.
        patch_size: side of a patch, in pixels; the stride of the output.
        in_channels: channels of the image.
        rope: ``'mixed'``, ``'axial'`` or ``None``.
        rope_theta: base of the frequencies; ``None`` for the paper's value (mixed 10, axial 100).
        ape: whether to add a learned absolute position embedding.
        window_size: maximum side of an attention window, in tokens; 0 for global attention in every block.
        global_attn_indexes: blocks with global attention if ``window_size`` is not 0; negative indexes count from the
            end.
        out_indices: blocks whose output is returned; negative indexes count from the end. Later blocks are neither run
            nor trained.
        with_cls_token: whether to add a cls token.
        layer_scale_init_value: initial value of LayerScale; ``None`` for no LayerScale.
        drop_path_rate: drop path rate of the last block; it rises linearly from 0 at the first.
        final_norm: whether to normalise the output of the last block.
        frozen_stages: number of blocks to freeze, with the embeddings: 0 freezes only the embeddings, -1 nothing.
        with_cp: whether to recompute each block in the backward pass, to save memory.
        out_type: ``'featmap'`` for maps, or ``'cls_token'`` for the cls token, which needs ``with_cls_token``; a
            classification head expects it with ``final_norm``.
        init_cfg: initialisation, as in MMEngine; ``dict(type='Pretrained', checkpoint=...)`` loads weights of
            any family by name, strictly (:class:`mmrope.weights.PretrainedBackbone`).
        positions: rule from a token's index to its position, a dict of ``rule`` (``'index'``, ``'reference'`` or
            ``'centred'``), ``ref``, ``offset`` and ``frame``, as :class:`mmrope.layers.Positions` takes them; ``None``
            for ``'index'``.
        window_frame: whether positions in windowed blocks scale to ``window_size`` instead of the grid.
        num_registers: number of register tokens, which follow the cls token.
        mlp: ``'gelu'`` or ``'swiglu'``.
        mlp_norm: whether to normalise the hidden channels of the MLPs.
        attn_norm: whether to normalise the heads' outputs before the projection.
        qk_norm: whether to normalise queries and keys, head by head.
        norm: ``'layer'`` or ``'rms'``, the kind of all norms.
        norm_eps: epsilon of all norms.
        pre_norm: whether to normalise the tokens before the first block.
        norm_every_output: whether ``final_norm`` normalises every output and not only the last block's.
        pos_embed_resize: how the position embedding fits another grid: ``'bicubic'`` without antialiasing,
            ``'bicubic_antialias'``, ``'bilinear'`` without antialiasing, or ``'tile'``.
        open_blocks: number of last blocks, all of global attention, that are left to a head such as
            :class:`mmrope.models.EoMT`: the output ends with :class:`mmrope.models.OpenTokens`. Needs ``final_norm``;
            ``out_indices`` may be empty, and names blocks before these.

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
        out_type: str = 'featmap',
        init_cfg: dict | list[dict] | None = None,
        *,
        positions: dict | None = None,
        window_frame: bool = False,
        num_registers: int = 0,
        mlp: str = 'gelu',
        mlp_norm: bool = False,
        attn_norm: bool = False,
        qk_norm: bool = False,
        norm: str = 'layer',
        norm_eps: float = 1e-6,
        pre_norm: bool = False,
        norm_every_output: bool = False,
        pos_embed_resize: str = 'bicubic',
        open_blocks: int = 0,
    ) -> None:
        super().__init__(init_cfg)
        settings = arch_settings(arch, ARCHS, 'embed_dims', 'depth', 'num_heads')
        self.embed_dims, depth = settings['embed_dims'], settings['depth']
        theta = theta_of(rope, rope_theta, THETAS)
        check_at_least(0, window_size=window_size, num_registers=num_registers)
        check_at_least(1, in_channels=in_channels)
        self.pos_grid: Grid = grid_of(img_size, patch_size)
        check_drop_path_rate(drop_path_rate)
        check_frozen_stages(frozen_stages, depth)
        global_blocks: Sequence[int] = range(depth)
        if window_size:
            global_blocks = indexes_in_order('global_attn_indexes', global_attn_indexes, depth)
        check_choice('mlp', mlp, *MLPS)
        check_choice('norm', norm, *NORMS)
        check_choice('pos_embed_resize', pos_embed_resize, *RESIZES, 'tile')
        if norm_every_output and not final_norm:
            raise ValueError('norm_every_output = True needs final_norm = True, but got final_norm = False')
        check_choice('out_type', out_type, 'featmap', 'cls_token')
        if out_type == 'cls_token' and not with_cls_token:
            raise ValueError(
                "out_type = 'cls_token' needs with_cls_token = True, but got with_cls_token = False; "
                "set it, or out_type = 'featmap'"
            )
        self.out_type = out_type
        self.out_indices = indexes_in_order('out_indices', out_indices, depth, at_least_one=not open_blocks)
        self.open_blocks = open_blocks
        check_open_blocks(open_blocks, depth, final_norm, self.out_indices, global_blocks)
        self.in_channels = in_channels
        # Where every block is global, nothing is cut into windows.
        self.window_size = window_size if len(global_blocks) < depth else 0
        self.global_blocks = frozenset(global_blocks)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.positions = positions_of(positions)
        self.norm_every_output = norm_every_output
        self.pos_embed_resize = pos_embed_resize
        self.num_prefix = with_cls_token + num_registers
        in_windows = self.positions
        if window_frame and self.window_size and in_windows.rule != 'index':
            in_windows = replace(in_windows, frame=(window_size, window_size))

        self.patch_embed = PatchEmbed(
            None, patch_size, in_channels, self.embed_dims, flatten=False, dynamic_img_pad=True
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims)) if with_cls_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, num_registers, self.embed_dims)) if num_registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.pos_grid), self.embed_dims)) if ape else None
        blocks = nn.ModuleList(
            Block(
                self.embed_dims,
                settings['num_heads'],
                settings['mlp_ratio'],
                rope,
                theta,
                layer_scale_init_value=layer_scale_init_value,
                drop_path_rate=drop_path_rate * i / max(depth - 1, 1),
                eps=norm_eps,
                positions=self.positions if i in self.global_blocks else in_windows,
                mlp=mlp,
                norm=norm,
                attn_norm=attn_norm,
                mlp_norm=mlp_norm,
                qk_norm=qk_norm,
            )
            for i in range(depth)
        )
        self.blocks = cast(Sequence[Block], blocks)  # for mypy
        norms = partial(NORMS[norm], self.embed_dims, eps=norm_eps)
        self.norm_pre = norms() if pre_norm else None
        self.norm = norms() if final_norm else None
        for embedding in self._embeddings():
            trunc_normal_(embedding, std=0.02)
        self._prepare()

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        """Compute the maps or the cls tokens of the blocks ``out_indices``.

        Args:
            x: images, ``(B, in_channels, H, W)``, padded at the bottom and right to a multiple of ``patch_size``.

        Returns:
            One ``(B, embed_dims, ceil(H / patch_size), ceil(W / patch_size))`` for each of ``out_indices``, or one
            ``(B, embed_dims)`` if ``out_type`` is ``'cls_token'``; last, with ``open_blocks``, an :class:`OpenTokens`.

        Raises:
            ValueError: if ``x`` has the wrong shape, is empty or is not in floating point.
        """
        check_images(x, self.in_channels)
        x = self.patch_embed(x)
        grid = constant_size(x.shape[2:]) if self.window_size else (x.shape[2], x.shape[3])
        row_by_row = one_window(grid)
        windows = even_windows(grid, self.window_size) if self.window_size else row_by_row
        # The residual stream keeps the precision of the parameters under autocast.
        x = x.flatten(2).transpose(1, 2).contiguous().to(self.patch_embed.proj.weight.dtype)
        x = self._add_prefix(reorder(self._add_pos_embed(x, grid), row_by_row, windows))
        outs = []
        for i, block in zip(range(self._num_run()), self.blocks):
            seen = (row_by_row, windows) if i in self.global_blocks else (windows, None)
            x = self._run(block, x, *seen)
            if i in self.out_indices:
                last = i == len(self.blocks) - 1 or self.norm_every_output
                out = self.norm(x) if last and self.norm is not None else x
                outs.append(self._to_output(out, grid, windows, row_by_row))
        return (*outs, self._open(x, grid, windows, row_by_row)) if self.open_blocks else tuple(outs)

    def notes(self) -> dict[str, Any]:
        """Return the number of heads, the rule of positions, and the grid of a position embedding."""
        grid = {} if self.pos_embed is None else {'pos_grid': self.pos_grid}
        return {'num_heads': (self.blocks[0].attn.num_heads,), 'positions': (self.positions.rule,), **grid}

    def weights_unused(self, key: str) -> str | None:
        """Return a reason for prefix tokens and a classifier's final norm, if this model has none."""
        if key in ('cls_token', 'reg_token'):
            return f'the model has no {"cls token" if key == "cls_token" else "registers"}'
        return 'the model has no final norm' if key.startswith('norm.') else None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any) -> None:
        """Resize a position embedding if the metadata names another grid."""
        key, grid = f'{prefix}pos_embed', tuple(local_metadata.get('pos_grid', self.pos_grid))
        if key in state_dict and grid != self.pos_grid and math.prod(grid) == state_dict[key].shape[1]:
            state_dict[key] = resize_pos_embed(state_dict[key], grid, self.pos_grid, self.pos_embed_resize)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def to_grid(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Rearrange the input or output tokens of a block, from a forward hook say, as a map of the image.

        Args:
            x: tokens in the blocks' order, ``(B, P + H * W, C)``; in an open block a head's own tokens come first.
            size: height and width of the images, in pixels.

        Returns:
            Their map, ``(B, C, H, W)``, without the ``P`` prefix tokens.

        Raises:
            ValueError: if ``x`` does not hold the tokens of ``size``.
        """
        grid = tuple(-(-side // patch) for side, patch in zip(size, self.patch_embed.patch_size))
        prefix = self.num_prefix
        own = x.shape[1] - prefix - grid[0] * grid[1] if x.ndim == 3 else -1  # tokens of a head
        if own < 0 or (own and not self.open_blocks):
            raise ValueError(
                f'x must be (B, {prefix} + {grid[0]} * {grid[1]}, C) tokens for images of {tuple(size)} pixels, '
                f'but got shape {tuple(x.shape)}'
            )
        windows = even_windows(grid, self.window_size) if self.window_size and not own else one_window(grid)
        return to_map(reorder(x[:, own + prefix :], windows, one_window(grid)), grid)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: name of the parameter, ``prefix`` included.
            prefix: prefix of this backbone's parameter names, ``'backbone.'`` within a detector.

        Returns:
            The depth of its layer and the number of depths. Depth 0 is the embeddings, ``i + 1`` is block ``i``, and
            the last one holds the final norm and parameters of other modules.
        """
        num_layers = len(self.blocks) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        parts = param_name[len(prefix) :].split('.')
        if parts[0] in ('patch_embed', 'cls_token', 'reg_token', 'pos_embed', 'norm_pre'):
            return 0, num_layers
        if parts[0] == 'blocks':
            return int(parts[1]) + 1, num_layers
        return num_layers - 1, num_layers

    def _add_pos_embed(self, x: Tensor, grid: Grid) -> Tensor:
        if self.pos_embed is None:
            return x
        return x + resize_pos_embed(self.pos_embed, self.pos_grid, grid, self.pos_embed_resize)

    def _add_prefix(self, x: Tensor) -> Tensor:
        tokens = [token for token in (self.cls_token, self.reg_token) if token is not None]
        if tokens:
            x = torch.cat([*(token.expand(len(x), -1, -1) for token in tokens), x], dim=1)  # (B, P + H * W, C)
        return x if self.norm_pre is None else self.norm_pre(x)

    def _to_output(self, x: Tensor, grid: Grid, windows: Windows, row_by_row: Windows) -> Tensor:
        if self.out_type == 'cls_token':
            return x[:, 0]  # (B, C)
        if self.num_prefix and self.window_size:
            x = x[:, self.num_prefix :]
        return to_map(reorder(x, windows, row_by_row), grid)

    def _open(self, x: Tensor, grid: Grid, windows: Windows, row_by_row: Windows) -> OpenTokens:
        if windows is not row_by_row:
            prefix, x = x[:, : self.num_prefix], x[:, self.num_prefix :]
            x = torch.cat((prefix, reorder(x, windows, row_by_row)), dim=1)
        blocks = [partial(self._run, block, windows=row_by_row) for block in list(self.blocks)[-self.open_blocks :]]
        return OpenTokens(x, grid, blocks, cast(nn.Module, self.norm))

    def _num_run(self) -> int:
        """Count the blocks that ``forward`` runs."""
        return len(self.blocks) - self.open_blocks if self.open_blocks else self.out_indices[-1] + 1

    def _embeddings(self) -> list[nn.Parameter]:
        embeddings = (self.cls_token, self.reg_token, self.pos_embed)
        return [embedding for embedding in embeddings if embedding is not None]

    def _frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        if self.frozen_stages >= 0:
            yield self.patch_embed
            yield from self._embeddings()
            if self.norm_pre is not None:
                yield self.norm_pre
            yield from self.blocks[: self.frozen_stages]
        last = self._num_run() + self.open_blocks
        yield from self.blocks[last:]  # not run, so they would get no gradient
        used = last == len(self.blocks) or self.norm_every_output
        if self.norm is not None and (not used or self.frozen_stages >= last):
            yield self.norm
