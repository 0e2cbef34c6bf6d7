"""The published ImageNet-1k weights that mmrope's backbones load, and what is known of each.

Names and accuracies are those of the authors' README at https://github.com/naver-ai/rope-vit: top-1 in percent, trained
at 224 pixels, without fine-tuning. The names are also those of the repositories at https://huggingface.co/naver-ai,
but for the Swins without RoPE: the authors publish no weights of these baselines, so their rows name Microsoft's, for
which Microsoft reports 81.2 (tiny), 83.2 (small) and 83.5 (base) at 224 pixels. Licences are those that timm states for
its copies of the weights.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch

from ..models import RoPESwin, RoPEViT

CLASSES = 1000
BACKBONES = {'RoPEViT': RoPEViT, 'RoPESwin': RoPESwin}


@dataclass(frozen=True)
class KnownWeights:
    """One checkpoint of a classifier of 1000 classes.

    Args:
        name: As the authors' README has it, which for all but the Swins without RoPE is a repository's, below
            ``naver-ai/``.
        backbone: The class that loads it, ``'RoPEViT'`` or ``'RoPESwin'``.
        arch: Size of that class.
        rope: ``'axial'``, ``'mixed'`` or ``None``.
        ape: Whether it has an absolute position embedding.
        rpb: Whether it has a relative position bias.
        patch_size: Side of a patch, in pixels.
        window_size: Side of an attention window in tokens, as trained; ``None`` for global attention.
        top1_224: Published ImageNet-1k top-1 accuracy at 224 pixels, in percent.
        top1_384: The same at 384 pixels, of a Swin with windows of 12 tokens.
        timm: timm's name for the same weights, if it has them.
        licence: ``None`` where no statement was found.
    """

    name: str
    backbone: str
    arch: str
    rope: str | None
    ape: bool
    rpb: bool
    patch_size: int
    window_size: int | None
    top1_224: float
    top1_384: float
    timm: str | None
    licence: str | None

    @property
    def checkpoint(self) -> str:
        """What ``init_cfg`` of a backbone names it by."""
        return f'timm:{self.timm}' if self.rpb else f'hf-hub:naver-ai/{self.name}'

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments with which ``backbone`` is the upstream model, but for its head."""
        if self.backbone == 'RoPESwin':
            return dict(arch=self.arch, rope=self.rope, rpb=self.rpb, out_indices=(3,), out_type='avg_featmap')
        tokens = dict(with_cls_token=True, final_norm=True, out_type='cls_token')
        return dict(arch=self.arch, rope=self.rope, ape=self.ape, **tokens)

    def num_params(self) -> int:
        """Count the parameters of the upstream model with its head, on one that takes no memory."""
        with torch.device('meta'):
            model = BACKBONES[self.backbone](**self.arguments)
        channels = model.embed_dims if self.backbone == 'RoPEViT' else model.num_features[-1]
        return sum(param.numel() for param in model.parameters()) + (channels + 1) * CLASSES


def _vit(name: str, top1_224: float, top1_384: float) -> KnownWeights:
    kind, arch = re.fullmatch(r'(.*)deit_(small|base|large)_patch16_LS', name).groups()
    rope = 'axial' if 'axial' in kind else 'mixed' if 'mixed' in kind else None
    both = kind.endswith('_ape_')
    timm = f'vit_{arch}_patch16_rope{"_mixed" * (rope == "mixed")}{"_ape" * both}_224.naver_in1k' if rope else None
    licence = 'Apache-2.0' if timm else None
    ape = both or not rope
    return KnownWeights(name, 'RoPEViT', arch, rope, ape, False, 16, None, top1_224, top1_384, timm, licence)


def _swin(name: str, top1_224: float, top1_384: float) -> KnownWeights:
    rope, arch = re.fullmatch(r'swin_(?:rope_(axial|mixed)_)?(tiny|small|base)_patch4_window7_224', name).groups()
    timm, licence = (None, None) if rope else (f'{name}.ms_in1k', 'MIT')
    return KnownWeights(name, 'RoPESwin', arch, rope, False, not rope, 4, 7, top1_224, top1_384, timm, licence)


KNOWN = (
    _vit('deit_small_patch16_LS', 80.4, 79.4),
    _vit('deit_base_patch16_LS', 83.4, 82.8),
    _vit('deit_large_patch16_LS', 84.6, 84.2),
    _vit('rope_axial_deit_small_patch16_LS', 80.9, 80.0),
    _vit('rope_axial_deit_base_patch16_LS', 83.6, 83.9),
    _vit('rope_axial_deit_large_patch16_LS', 84.7, 85.1),
    _vit('rope_mixed_deit_small_patch16_LS', 80.9, 81.8),
    _vit('rope_mixed_deit_base_patch16_LS', 83.8, 84.4),
    _vit('rope_mixed_deit_large_patch16_LS', 84.8, 85.6),
    _vit('rope_axial_ape_deit_small_patch16_LS', 80.7, 81.2),
    _vit('rope_axial_ape_deit_base_patch16_LS', 83.7, 83.8),
    _vit('rope_axial_ape_deit_large_patch16_LS', 84.7, 85.1),
    _vit('rope_mixed_ape_deit_small_patch16_LS', 80.9, 81.7),
    _vit('rope_mixed_ape_deit_base_patch16_LS', 83.8, 84.3),
    _vit('rope_mixed_ape_deit_large_patch16_LS', 84.9, 85.5),
    _swin('swin_tiny_patch4_window7_224', 81.2, 78.9),
    _swin('swin_small_patch4_window7_224', 82.9, 81.0),
    _swin('swin_base_patch4_window7_224', 83.3, 81.2),
    _swin('swin_rope_axial_tiny_patch4_window7_224', 81.3, 79.2),
    _swin('swin_rope_axial_small_patch4_window7_224', 83.1, 80.9),
    _swin('swin_rope_axial_base_patch4_window7_224', 83.6, 81.8),
    _swin('swin_rope_mixed_tiny_patch4_window7_224', 81.4, 79.5),
    _swin('swin_rope_mixed_small_patch4_window7_224', 83.0, 81.4),
    _swin('swin_rope_mixed_base_patch4_window7_224', 83.7, 82.1),
)
