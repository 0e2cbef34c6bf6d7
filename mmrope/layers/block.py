"""Transformer block of a vision backbone."""

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from .attention import Attention
from .rope import is_tracing
from .windows import Windows

# Hidden numbers of an MLP at a time, on the CPU.
CHUNK = 4 * 2**20


class Block(nn.Module):
    """Attention, global or in windows, and an MLP, each normalised before and, with LayerScale, scaled after.

    On the CPU the MLP takes some tokens at a time, and hooks on it see these.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP over ``dim``.
        rope: ``'mixed'``, ``'axial'`` or ``None``.
        theta: base of the frequencies.
        rpb_window_size: largest extent of a window, in tokens, for a relative position bias; ``None`` for no bias.
        across_windows: whether tokens attend to the whole grid although they lie window by window.
        layer_scale_init_value: what LayerScale starts at; ``None`` for a block without it.
        drop_path_rate: probability to drop a branch for a sample.
        eps: of the norms.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        rope: str | None,
        theta: float | None,
        rpb_window_size: int | None = None,
        across_windows: bool = False,
        layer_scale_init_value: float | None = None,
        drop_path_rate: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, rope, theta, rpb_window_size, across_windows)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)
        for name in ('gamma_1', 'gamma_2'):
            gamma = None if layer_scale_init_value is None else torch.full((dim,), float(layer_scale_init_value))
            self.register_parameter(name, None if gamma is None else nn.Parameter(gamma))

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """``x``: tokens window by window, ``(B, P + H * W, C)``, as :class:`Attention`. Returns the same shape."""
        x = _add(x, self.attn(self.norm1(x), windows), self._scale(x, self.gamma_1))
        scale = self._scale(x, self.gamma_2)
        parts = [_add(part, self.mlp(self.norm2(part)), scale) for part in self._chunks(x)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Tokens are alike to the MLP: some at a time, its hidden channels stay in cache."""
        if x.device.type != 'cpu' or is_tracing():
            return (x,)
        return x.split(max(1, CHUNK // (self.mlp.fc1.out_features * max(1, len(x)))), dim=1)

    def _scale(self, x: Tensor, gamma: Tensor | None) -> Tensor | None:
        """What scales a branch: LayerScale, and for a sample whose branch is dropped 0. ``None`` for 1."""
        if self.training and self.drop_path.drop_prob:
            return self.drop_path((x.new_ones(1) if gamma is None else gamma).expand(len(x), 1, -1))
        return gamma


def _add(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """Add a branch in one pass."""
    if scale is None:
        return x + branch
    # Autocast would make a float32 copy of a half precision branch first, and keep it.
    with torch.autocast(x.device.type, enabled=False):
        return torch.addcmul(x, branch, scale)
