"""A plain ViT as a segmenter: queries that attend along with the tokens in its last blocks."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .arguments import check_at_least
from .open_tokens import OpenTokens


class Prediction(NamedTuple):
    """Logits of the queries.

    Attributes:
        classes: ``(B, Q, num_classes + 1)``; the last class is "no object".
        masks: ``(B, Q, H * s, W * s)`` for a grid of ``H`` x ``W``; ``s`` is 4 for patches of 16 pixels.
    """

    classes: Tensor
    masks: Tensor


class EoMT(nn.Module):
    """Queries, classes and masks for the open blocks of a ViT (:class:`OpenTokens`).

    The *Encoder-only Mask Transformer* of Kerssies et al., *Your ViT is Secretly an Image Segmentation Model* (CVPR
    2025, arXiv 2503.19108). Learned queries are put before the tokens and attend with them in the open blocks. In
    training there is a prediction before each of these blocks and after the last; in eval mode only the last is made.

    In training a query attends in each block only to those patches that its mask of the prediction before holds, and to
    all queries and prefix tokens. In block ``i`` each query of each image does so with the probability
    ``mask_probabilities[i]``, 1 at first; :class:`mmrope.engine.MaskAnnealingHook` lowers them to 0, since in eval mode
    there are no masks.

    Args:
        embed_dims: channels of the tokens.
        num_classes: number of classes, "no object" not counted.
        num_queries: number of queries.
        num_blocks: number of open blocks.
        patch_size: side of a patch, in pixels. Masks have ``max(1, floor(log2(patch_size)) - 2)`` times twice the
            resolution of the grid.

    Raises:
        ValueError: if an argument is no positive int.
    """

    def __init__(
        self, embed_dims: int, num_classes: int, num_queries: int, num_blocks: int, patch_size: int = 16
    ) -> None:
        super().__init__()
        check_at_least(1, embed_dims=embed_dims, num_classes=num_classes, num_queries=num_queries)
        check_at_least(1, num_blocks=num_blocks, patch_size=patch_size)
        self.mask_probabilities = [1.0] * num_blocks
        self.queries = nn.Parameter(torch.randn(num_queries, embed_dims))
        self.classes = nn.Linear(embed_dims, num_classes + 1)
        layers: list[nn.Module] = [nn.Linear(embed_dims, embed_dims)]
        for _ in range(2):
            layers += [nn.GELU(), nn.Linear(embed_dims, embed_dims)]
        self.masks = nn.Sequential(*layers)
        doublings = max(1, int(math.log2(patch_size)) - 2)
        self.upscale = nn.Sequential(*(_doubling(embed_dims) for _ in range(doublings)))

    def forward(self, tokens: OpenTokens) -> list[Prediction]:
        """Predict from the tokens that a backbone with ``open_blocks`` gives.

        Returns:
            In training one prediction before each block and one after the last; in eval mode only this one.

        Raises:
            ValueError: if there is another number of open blocks than ``num_blocks``.
        """
        if len(tokens.blocks) != len(self.mask_probabilities):
            raise ValueError(
                f'num_blocks must be the open_blocks of the backbone, {len(tokens.blocks)}, '
                f'but got {len(self.mask_probabilities)}'
            )
        x = torch.cat((self.queries.to(tokens.x.dtype).expand(len(tokens.x), -1, -1), tokens.x), dim=1)
        predictions = []
        for block, probability in zip(tokens.blocks, self.mask_probabilities):
            mask = None
            if self.training:
                predictions.append(self._predict(x, tokens))
                mask = self._attention_mask(predictions[-1].masks.detach(), tokens, probability)
            x = block(x, mask=mask)
        return [*predictions, self._predict(x, tokens)]

    def _predict(self, x: Tensor, tokens: OpenTokens) -> Prediction:
        """Predict from the tokens ``(B, Q + P + H * W, C)``, by the norm of the backbone."""
        x = tokens.norm(x)
        queries, (height, width) = x[:, : len(self.queries)], tokens.grid
        patches = x[:, x.shape[1] - height * width :].transpose(1, 2).unflatten(2, tokens.grid)
        masks = torch.einsum('bqc,bchw->bqhw', self.masks(queries), self.upscale(patches))
        return Prediction(self.classes(queries), masks)

    def _attention_mask(self, masks: Tensor, tokens: OpenTokens, probability: float) -> Tensor | None:
        """Say which tokens each query may attend to, ``(B, Q, Q + P + H * W)``; ``None`` for all."""
        if probability <= 0:
            return None
        inside = F.interpolate(masks, tokens.grid, mode='bilinear') > 0  # (B, Q, H, W)
        if probability < 1:
            free = torch.rand(inside.shape[:2], device=inside.device) > probability
            inside = inside | free[..., None, None]
        others = inside.new_ones(*inside.shape[:2], len(self.queries) + tokens.x.shape[1] - inside[0, 0].numel())
        return torch.cat((others, inside.flatten(2)), dim=2)


def _doubling(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels, channels, 2, stride=2),
        nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        LayerNorm2d(channels),
    )
