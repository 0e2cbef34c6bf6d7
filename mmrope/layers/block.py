"""Transformer block of a vision backbone."""

from collections.abc import Callable
from functools import partial
from math import floor
from typing import Any

import torch
from timm.layers import DropPath, GluMlp, Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..layers import kernels
from .attention import Attention
from .rope import INDEX, Positions
from .tracing import is_tracing, without_autocast
from .windows import Windows

# Hidden activations of an MLP that the CPU computes at a time: 16 MB in float32, which stay in cache.
CHUNK = 4 * 2**20
NORMS: dict[str, Callable[..., nn.Module]] = {'layer': nn.LayerNorm, 'rms': nn.RMSNorm}
MLPS: dict[str, Callable[..., nn.Module]] = {'gelu': Mlp, 'swiglu': partial(GluMlp, act_layer=nn.SiLU, gate_last=False)}


class Block(nn.Module):
    """Pre-norm transformer block: attention, global or in windows, and an MLP, with optional LayerScale.

    On the CPU the block runs timm's ``Mlp`` or ``GluMlp`` on chunks of tokens, unless a hook is attached to it, to one
    of its modules or to ``norm2``. Hooks, and any other MLP, get all tokens at once.

    Args:
        dim: channels per token, a multiple of ``num_heads``.
        num_heads: number of attention heads.
        mlp_ratio: hidden channels of the MLP, relative to ``dim``.
        rope: ``'mixed'``, ``'axial'`` or ``None``.
        theta: base of the frequencies.
        rpb_window_size: maximum side of a window, in tokens, for a relative position bias; ``None`` for no bias.
        layer_scale_init_value: initial value of LayerScale; ``None`` for no LayerScale.
        drop_path_rate: probability of dropping a branch, per sample.
        eps: epsilon of the norms.
        positions: rule from the index of a token to its position.
        mlp: ``'gelu'``, or ``'swiglu'``, which multiplies ``fc2``'s input by a gate: the first half of ``fc1``.
        norm: ``'layer'`` or ``'rms'``, the kind of all norms.
        attn_norm: whether to normalise the heads' outputs before the projection, as EVA-02-CLIP does.
        mlp_norm: whether to normalise the hidden channels of the MLP, as EVA-02 does.
        qk_norm: whether to normalise queries and keys, head by head before the rotation.

    Raises:
        ValueError: as :class:`Attention`.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        rope: str | None,
        theta: float | None,
        rpb_window_size: int | None = None,
        layer_scale_init_value: float | None = None,
        drop_path_rate: float = 0.0,
        eps: float = 1e-6,
        positions: Positions = INDEX,
        mlp: str = 'gelu',
        norm: str = 'layer',
        attn_norm: bool = False,
        mlp_norm: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        norms = partial(NORMS[norm], eps=eps)
        inner = [norms if wanted else None for wanted in (attn_norm, qk_norm)]
        self.norm1 = norms(dim)
        self.attn = Attention(dim, num_heads, rope, theta, rpb_window_size, positions, *inner)
        self.norm2 = norms(dim)
        hidden = floor(dim * mlp_ratio + 1e-6)  # a ratio of two whole numbers may fall short of the first
        self.mlp = MLPS[mlp](dim, hidden * (1 + (mlp == 'swiglu')), norm_layer=norms if mlp_norm else None)
        self.drop_path = DropPath(drop_path_rate)
        for name in ('gamma_1', 'gamma_2'):
            gamma = None if layer_scale_init_value is None else torch.full((dim,), float(layer_scale_init_value))
            self.register_parameter(name, None if gamma is None else nn.Parameter(gamma))

    def forward(self, x: Tensor, windows: Windows, order: Windows | None = None, mask: Tensor | None = None) -> Tensor:
        """Apply attention and MLP to the tokens ``x``; arguments, result and errors as for :class:`Attention`."""
        masked = {} if mask is None else {'mask': mask}  # another attention need not know of masks
        x = _add(x, self.attn(self.norm1(x), windows, order, **masked), self._scale(x, self.gamma_1))
        scale = self._scale(x, self.gamma_2)
        parts = [_add(part, self.mlp(self.norm2(part)), scale) for part in self._chunks(x)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split the tokens if the MLP treats each one separately and no hook watches."""
        whole = x.device.type != 'cpu' or is_tracing() or type(self.mlp) not in (Mlp, GluMlp)
        if whole or any(_has_hooks(module) for module in (*self.mlp.modules(), self.norm2)):
            return (x,)
        hidden = getattr(self.mlp.fc1, 'out_features', x.shape[2])
        return x.split(max(1, CHUNK // (hidden * max(1, len(x)))), dim=1)

    def _scale(self, x: Tensor, gamma: Tensor | None) -> Tensor | None:
        """Compute the factor of a branch: LayerScale, and 0 for samples whose branch is dropped. ``None`` means 1."""
        if self.training and self.drop_path.drop_prob:
            return self.drop_path((x.new_ones(1) if gamma is None else gamma).expand(len(x), 1, -1))
        return gamma


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _add(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """Add a scaled branch in one pass."""
    if scale is None:
        return x + branch
    if kernels.take(branch) and branch.shape[-1] == scale.shape[-1]:
        return _AddScaled.apply(x, branch, scale)
    # Autocast would first make a float32 copy of a half-precision branch, and keep it.
    with without_autocast(x.device):
        return torch.addcmul(x, branch, scale)


class _AddScaled(torch.autograd.Function):
    """``x + branch * scale``, with all gradients in one pass over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
        ctx.dtype = branch.dtype
        ctx.save_for_backward(branch if ctx.needs_input_grad[2] else None, scale)
        with without_autocast(x.device):
            return torch.addcmul(x, branch, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        branch, scale = ctx.saved_tensors
        if branch is None:
            return grad, (grad * scale).to(ctx.dtype), None
        return grad, *kernels.scale_gradients(grad, branch, scale)
