"""Backbones for comparison that no package registers: the paper's way to compute RoPE, and timm's ViTs."""

import timm
import torch
from timm.layers import Mlp
from torch import Tensor, nn

from mmrope.registry import MODELS


@MODELS.register_module()
class PaperRoPEViT(nn.Module):
    """RoPE-Mixed ViT as its authors compute it: one complex table for all blocks per forward, explicit softmax.

    Written from the formulas of Heo et al., ECCV 2024 (arXiv 2403.13298), section 3; a test shows that it equals
    :class:`mmrope.RoPEViT` with a cls token under the same weights.

    Args:
        embed_dims: channels of a token.
        depth: number of blocks.
        num_heads: number of attention heads.
        patch_size: side of a patch, in pixels.
    """

    def __init__(self, embed_dims: int = 768, depth: int = 12, num_heads: int = 12, patch_size: int = 16) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.patch_embed = nn.Conv2d(3, embed_dims, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.freqs = nn.Parameter(torch.randn(2, depth, num_heads, embed_dims // num_heads // 2))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                dict(
                    norm1=nn.LayerNorm(embed_dims, eps=1e-6),
                    qkv=nn.Linear(embed_dims, 3 * embed_dims),
                    proj=nn.Linear(embed_dims, embed_dims),
                    norm2=nn.LayerNorm(embed_dims, eps=1e-6),
                    mlp=Mlp(embed_dims, 4 * embed_dims),
                )
            )
            for _ in range(depth)
        )
        self.gammas = nn.Parameter(torch.full((depth, 2, embed_dims), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        """Turn images ``(B, 3, H, W)``, of whole patches, into tokens ``(B, 1 + N, embed_dims)``."""
        x = self.patch_embed(x)
        table = self._table(*x.shape[2:])
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)), dim=1)
        for block, turns, (gamma_1, gamma_2) in zip(self.blocks, table, self.gammas):
            x = x + gamma_1 * self._attend(block, block['norm1'](x), turns)
            x = x + gamma_2 * block['mlp'](block['norm2'](x))
        return x

    def _table(self, height: int, width: int) -> Tensor:
        """Compute ``exp(i * angle)`` of all blocks, ``(depth, heads, N, head_dim // 2)``."""
        places = torch.arange(height * width, device=self.freqs.device)
        cols, rows = (places % width).float(), (places // width).float()
        angles = cols[:, None] * self.freqs[0, :, :, None] + rows[:, None] * self.freqs[1, :, :, None]
        return torch.polar(torch.ones_like(angles), angles)

    def _attend(self, block: nn.ModuleDict, x: Tensor, turns: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        head_dim = dim // self.num_heads
        q, k, v = block['qkv'](x).reshape(batch, tokens, 3, self.num_heads, head_dim).permute(2, 0, 3, 1, 4)
        q, k = (torch.cat((y[:, :, :1], self._turn(y[:, :, 1:], turns)), dim=2) for y in (q, k))
        weights = (q * head_dim**-0.5) @ k.transpose(-2, -1)
        return block['proj']((weights.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))

    @staticmethod
    def _turn(x: Tensor, turns: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


@MODELS.register_module()
class TimmViT(nn.Module):
    """Features of a timm ViT.

    Args:
        name: as ``timm.create_model`` takes it.
        kwargs: as ``timm.create_model`` takes them.
    """

    def __init__(self, name: str, dynamic_img_size: bool | None = True, **kwargs) -> None:
        super().__init__()
        self.model = timm.create_model(name, num_classes=0, dynamic_img_size=dynamic_img_size, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Turn images ``(B, 3, H, W)`` into tokens ``(B, P + N, C)``."""
        return self.model.forward_features(x)
