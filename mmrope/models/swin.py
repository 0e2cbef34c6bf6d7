"""Swin Transformer with rotary position embedding."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor, nn

from ..layers import Block, Windows, one_window, reorder, shifted_windows
from ..layers.windows import Grid
from ..registry import MODELS
from .arguments import (
    arch_settings,
    check_at_least,
    check_choice,
    check_drop_path_rate,
    check_frozen_stages,
    check_images,
    indexes_in_order,
    theta_of,
)
from .backbone import Backbone, constant_size, to_map

ARCHS = {
    'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'base': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
THETAS = {'mixed': 10.0, 'axial': 50.0}
EPS = 1e-5
OUTPUT_NORM = re.compile(r'norm\d+\.')


class PatchMerging(nn.Module):
    """Step down from 2 x 2 tokens to one with twice the channels; odd sides are zero-padded at the end.

    Args:
        dim: channels per token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=EPS)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge tokens ``(B, H, W, C)`` to ``(B, ceil(H / 2), ceil(W / 2), 2 * C)``."""
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H / 2, 2, W / 2, 2, C)
        # Order in Swin's checkpoints: the two tokens of the left column come first.
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class Stage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows, and the step down to the next.

    Args:
        blocks: blocks of this resolution.
        downsample: the step down; ``None`` for the last stage.
    """

    def __init__(self, blocks: Sequence[Block], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = cast(Sequence[Block], nn.ModuleList(blocks))  # for mypy
        self.downsample = downsample


@MODELS.register_module()
class RoPESwin(Backbone):
    """Swin Transformer with 2D rotary position embedding, for images of any size.

    The model of Liu et al., *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows* (ICCV 2021,
    arXiv 2103.14030), with the position embeddings of Heo et al., *Rotary Position Embedding for Vision Transformer*
    (ECCV 2024, arXiv 2403.13298). Shifted windows are cut from the grid, not rolled and masked, so none holds
    padding. Where the window size divides the grid, the result equals Swin's. An axis that fits into one window is not
    shifted.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, or a dict with ``embed_dims``, ``depths`` and ``num_heads``
            (one number per stage each), and optionally ``mlp_ratio`` (default 4).
        patch_size: side of a patch, in pixels; the stride of the first output.
        in_channels: channels of the image.
        window_size: side of a whole window, in tokens. It may differ from the weights' window size: frequencies do not
            depend on it, and a relative position bias is resized on loading.
        rope: ``'mixed'``, ``'axial'`` or ``None``.
        rope_theta: base of the frequencies; ``None`` for the paper's value (mixed 10, axial 50).
        rpb: whether to add Swin's relative position bias.
        out_indices: stages whose output is returned; negative indexes count from the end. Later stages are neither
            run nor trained.
        drop_path_rate: drop path rate of the last block; it rises linearly from 0 at the first.
        frozen_stages: number of stages to freeze, with the patch embedding: 0 freezes only the embedding, -1 nothing.
        with_cp: whether to recompute each block in the backward pass, to save memory.
        out_type: ``'featmap'`` for maps, or ``'avg_featmap'`` for their mean over all positions, as a classification
            head takes from the last stage.
        init_cfg: initialisation, as in MMEngine; ``dict(type='Pretrained', checkpoint=...)`` loads weights of
            RoPE-ViT's authors, timm or mmrope by name, strictly (:class:`mmrope.weights.PretrainedBackbone`).

    Raises:
        ValueError: if an argument is out of range; the message names it, its value and what is allowed.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        patch_size: int = 4,
        in_channels: int = 3,
        window_size: int = 7,
        rope: str | None = 'mixed',
        rope_theta: float | None = None,
        rpb: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.2,
        frozen_stages: int = -1,
        with_cp: bool = False,
        out_type: str = 'featmap',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = arch_settings(arch, ARCHS, 'embed_dims', 'depths', 'num_heads', of_stages=('depths', 'num_heads'))
        depths, num_heads = settings['depths'], settings['num_heads']
        if len(depths) != len(num_heads):
            raise ValueError(
                f'arch must have as many num_heads as depths, but got num_heads = {num_heads} and depths = {depths}'
            )
        theta = theta_of(rope, rope_theta, THETAS)
        check_at_least(1, patch_size=patch_size, in_channels=in_channels, window_size=window_size)
        check_drop_path_rate(drop_path_rate)
        check_frozen_stages(frozen_stages, len(depths))
        check_choice('out_type', out_type, 'featmap', 'avg_featmap')
        self.out_type = out_type
        self.out_indices = indexes_in_order('out_indices', out_indices, len(depths), at_least_one=True)
        self.embed_dims = settings['embed_dims']
        self.num_features = [self.embed_dims * 2**i for i in range(len(depths))]
        self.in_channels = in_channels
        self.window_size = window_size
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        self.patch_embed = PatchEmbed(
            None,
            patch_size,
            in_channels,
            self.embed_dims,
            norm_layer=partial(nn.LayerNorm, eps=EPS),
            output_fmt='NHWC',
            dynamic_img_pad=True,
        )
        stages = []
        for i, (dim, depth, heads) in enumerate(zip(self.num_features, depths, num_heads)):
            before = sum(depths[:i])
            blocks = [
                Block(
                    dim,
                    heads,
                    settings['mlp_ratio'],
                    rope,
                    theta,
                    rpb_window_size=window_size if rpb else None,
                    drop_path_rate=drop_path_rate * (before + j) / max(sum(depths) - 1, 1),
                    eps=EPS,
                )
                for j in range(depth)
            ]
            stages.append(Stage(blocks, PatchMerging(dim) if i < len(depths) - 1 else None))
        self.layers = cast(Sequence[Stage], nn.ModuleList(stages))
        for i in self.out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(self.num_features[i], eps=EPS))
        self._prepare()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the normalised maps of the stages ``out_indices``, or their means.

        Args:
            x: images, ``(B, in_channels, H, W)``, padded at the bottom and right to a multiple of ``patch_size``.

        Returns:
            One ``(B, embed_dims * 2 ** i, ceil(H / stride), ceil(W / stride))`` for each stage ``i`` of
            ``out_indices``, where ``stride`` is ``patch_size * 2 ** i``; or one ``(B, embed_dims * 2 ** i)`` if
            ``out_type`` is ``'avg_featmap'``.

        Raises:
            ValueError: if ``x`` has the wrong shape, is empty or is not in floating point.
        """
        check_images(x, self.in_channels)
        x = self.patch_embed(x)  # (B, H, W, C)
        grid = constant_size(x.shape[1:3])
        outs = []
        for i, stage in zip(range(self.out_indices[-1] + 1), self.layers):
            windows = row_by_row = one_window(grid)
            x = x.flatten(1, 2)
            for j, block in enumerate(stage.blocks):
                before, windows = windows, self._windows(grid, j)
                x = self._run(block, reorder(x, before, windows), windows)
            x = reorder(x, windows, row_by_row).unflatten(1, grid)
            if i in self.out_indices:
                outs.append(self._to_output(getattr(self, f'norm{i}')(x)))
            if i < self.out_indices[-1] and stage.downsample is not None:
                x, grid = stage.downsample(x), (-(-grid[0] // 2), -(-grid[1] // 2))
        return tuple(outs)

    def notes(self) -> dict[str, Any]:
        """Return the number of heads per stage."""
        return {'num_heads': tuple(stage.blocks[0].attn.num_heads for stage in self.layers)}

    def weights_may_miss(self, key: str) -> bool:
        """Return whether ``key`` is of an output norm: a Swin for classification has only the last one."""
        return OUTPUT_NORM.match(key) is not None

    def weights_unused(self, key: str) -> str | None:
        """Return a reason for norms of outputs that this model does not have."""
        return 'norm of an output that the model does not have' if OUTPUT_NORM.match(key) else None

    def to_grid(self, x: Tensor, size: tuple[int, int], stage: int, block: int) -> Tensor:
        """Rearrange the input or output tokens of a block, from a forward hook say, as a map of the image.

        Args:
            x: tokens in the block's order, ``(B, H * W, C)``.
            size: height and width of the images, in pixels.
            stage: index of the block's stage.
            block: index of the block in its stage.

        Returns:
            Their map, ``(B, C, H, W)``.

        Raises:
            ValueError: if ``x`` does not hold the tokens of the grid of ``size``.
        """
        grid = tuple(-(-side // (patch * 2**stage)) for side, patch in zip(size, self.patch_embed.patch_size))
        if x.ndim != 3 or x.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f'x must be (B, {grid[0]} * {grid[1]}, C) tokens in stage {stage} for images of {tuple(size)} pixels, '
                f'but got shape {tuple(x.shape)}'
            )
        return to_map(reorder(x, self._windows(grid, block), one_window(grid)), grid)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: name of the parameter, ``prefix`` included.
            prefix: prefix of this backbone's parameter names, ``'backbone.'`` within a detector.

        Returns:
            The depth of its layer and the number of depths. Depth 0 is the patch embedding, ``i + 1`` is block ``i`` of
            the whole model with the step down after it, and the last one holds the output norms and parameters of other
            modules.
        """
        depths = [len(stage.blocks) for stage in self.layers]
        num_layers = sum(depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        parts = param_name[len(prefix) :].split('.')
        if parts[0] == 'patch_embed':
            return 0, num_layers
        if parts[0] == 'layers':
            i = int(parts[1])
            block = int(parts[3]) if parts[2] == 'blocks' else depths[i] - 1
            return sum(depths[:i]) + block + 1, num_layers
        return num_layers - 1, num_layers

    def _windows(self, grid: Grid, block: int) -> Windows:
        """Cut the grid of a stage for one of its blocks; every second block has shifted windows."""
        return shifted_windows(grid, self.window_size, block % 2 * (self.window_size // 2))

    def _to_output(self, x: Tensor) -> Tensor:
        if self.out_type == 'avg_featmap':
            return x.mean((1, 2))  # (B, C)
        return x.permute(0, 3, 1, 2).contiguous()  # (B, C, H, W); MMCV's RoIAlign ignores strides

    def _frozen(self) -> Iterator[nn.Module]:
        if self.frozen_stages >= 0:
            yield self.patch_embed
        for i in range(self.frozen_stages):
            yield self.layers[i]
            if i in self.out_indices:
                yield getattr(self, f'norm{i}')
        last = self.out_indices[-1] + 1
        yield from self.layers[last:]  # not run, so they would get no gradient
        step_down = self.layers[last - 1].downsample
        if step_down is not None:
            yield step_down
