"""Feature pyramid from a single map."""

import inspect
import math
from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..registry import MODELS
from .arguments import check_at_least
from .open_tokens import OpenTokens

NORMS = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm, 'GN': nn.GroupNorm}
MODELS.register_module('LayerNorm2d', module=LayerNorm2d)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps at several scales from the last map of a plain backbone.

    Source: Li et al., *Exploring Plain Vision Transformer Backbones for Object Detection* (ECCV 2022,
    arXiv 2203.16527), section 3: transposed convolutions or max-pooling to each scale, then a 1 x 1 and a 3 x 3
    convolution.

    Args:
        in_channels: channels of the input map.
        out_channels: channels of each output.
        scales: size of each output relative to the map: powers of 2, from the finest to the coarsest.
        num_outs: number of maps to return; those past ``scales`` take every second pixel of the one before.
        norm_cfg: normalisation after every convolution: ``'mmrope.LayerNorm2d'``, ``'BN'``, ``'SyncBN'``, ``'GN'``, a
            class or the name of a registered one, with its settings and ``requires_grad``.
        init_cfg: initialisation, as in MMEngine.

    Raises:
        ValueError: if ``scales`` are not decreasing powers of 2, ``in_channels`` cannot be halved as often as a scale
            needs, ``num_outs`` is less than the number of scales, or ``norm_cfg`` names no class.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int = 5,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        norm_cfg = dict(type='mmrope.LayerNorm2d', eps=1e-6) if norm_cfg is None else norm_cfg
        check_at_least(1, in_channels=in_channels, out_channels=out_channels, num_outs=num_outs)
        if not scales or any(scale <= 0 or not math.log2(scale).is_integer() for scale in scales):
            raise ValueError(f'scales must be powers of 2, but got {tuple(scales)}')
        if any(fine <= coarse for fine, coarse in zip(scales, scales[1:])):
            raise ValueError(f'scales must decrease from the finest to the coarsest, but got {tuple(scales)}')
        if num_outs < len(scales):
            raise ValueError(f'num_outs must be at least {len(scales)} (the number of scales), but got {num_outs}')
        self.in_channels = in_channels
        self.num_outs = num_outs
        self.levels = nn.ModuleList(
            _level(in_channels, out_channels, int(math.log2(scale)), norm_cfg) for scale in scales
        )

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Build the pyramid.

        Args:
            inputs: the map ``(B, in_channels, H, W)``, or the maps of a backbone, of which the last is used.

        Returns:
            ``num_outs`` maps ``(B, out_channels, ceil(H * scale), ceil(W * scale))``, from the finest to the coarsest.

        Raises:
            ValueError: if the backbone leaves blocks to a head.
        """
        x = inputs if isinstance(inputs, Tensor) else inputs[-1]
        if isinstance(x, OpenTokens):
            raise ValueError(f'open_blocks of the backbone must be 0 before a neck, but got {len(x.blocks)}')
        outs = [level(x).contiguous() for level in self.levels]  # MMCV's RoIAlign ignores strides
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)


def _level(in_channels: int, out_channels: int, octave: int, norm_cfg: dict) -> nn.Sequential:
    """Build the layers from the input map to the output at ``2 ** octave`` times its size."""
    channels = in_channels
    if octave > 0 and channels % 2**octave:
        raise ValueError(f'in_channels must be a multiple of {2**octave} for scale {2**octave}, but got {in_channels}')
    layers: list[nn.Module] = []
    for step in range(octave):
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
        if step < octave - 1:
            layers += [_norm(norm_cfg, channels), nn.GELU()]
    if octave < 0:
        layers.append(nn.MaxPool2d(kernel_size=2**-octave, ceil_mode=True))
    layers += [nn.Conv2d(channels, out_channels, 1, bias=False), _norm(norm_cfg, out_channels)]
    layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), _norm(norm_cfg, out_channels)]
    return nn.Sequential(*layers)


def _norm(norm_cfg: dict, channels: int) -> nn.Module:
    """Build a normalisation as MMCV's ``build_norm_layer`` does; ``mmrope.models`` needs no MMCV."""
    settings = {'eps': 1e-5, **norm_cfg}
    kind, requires_grad = settings.pop('type', None), settings.pop('requires_grad', True)
    norm = kind if inspect.isclass(kind) else NORMS.get(kind) or MODELS.get(str(kind))
    if norm is None:
        raise ValueError(f'type of norm_cfg must be {", ".join(NORMS)} or a registered class, but got {kind!r}')
    layer = norm(channels, **settings) if norm is not nn.GroupNorm else norm(num_channels=channels, **settings)
    return layer.requires_grad_(requires_grad)
