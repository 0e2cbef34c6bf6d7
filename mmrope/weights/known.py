"""Table of the published ImageNet-1k weights that mmrope's backbones load.

Names and accuracies are from the authors' README at https://github.com/naver-ai/rope-vit: top-1 in percent, trained at
224 pixels, without fine-tuning. The repositories at https://huggingface.co/naver-ai have the same names, except for the
Swins without RoPE. The authors do not publish weights of these baselines, so their rows name Microsoft's weights, for
which Microsoft reports 81.2 (tiny), 83.2 (small) and 83.5 (base) at 224 pixels. Licences are as timm states them for
its copies of the weights.
"""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KnownWeights:
    """Published checkpoint of a classifier with 1000 classes.

    Args:
        name: name in the authors' README; except for Swins without RoPE also the repository's, below ``naver-ai/``.
        backbone: the class that loads it, ``'RoPEViT'`` or ``'RoPESwin'``.
        arch: model size, as ``arch`` of ``backbone``.
        rope: ``'axial'``, ``'mixed'`` or ``None``.
        ape: whether it has an absolute position embedding.
        rpb: whether it has a relative position bias.
        patch_size: side of a patch, in pixels.
        window_size: side of an attention window in tokens, as trained; ``None`` for global attention.
        top1_224: published ImageNet-1k top-1 accuracy at 224 pixels, in percent.
        top1_384: the same at 384 pixels; a Swin then has windows of 12 tokens.
        timm: timm's name for the same weights, if it has them.
        licence: licence of the weights; ``None`` if no statement was found.
        params: number of parameters, including the head.
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
    params: int

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint in ``init_cfg`` of a backbone."""
        return f'timm:{self.timm}' if self.rpb else f'hf-hub:naver-ai/{self.name}'

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that make ``backbone`` the published model without its head."""
        if self.backbone == 'RoPESwin':
            return dict(arch=self.arch, rope=self.rope, rpb=self.rpb, out_indices=(3,), out_type='avg_featmap')
        tokens = dict(with_cls_token=True, final_norm=True, out_type='cls_token')
        return dict(arch=self.arch, rope=self.rope, ape=self.ape, **tokens)


def _vit(name: str, params: int, top1_224: float, top1_384: float) -> KnownWeights:
    match = re.fullmatch(r'(.*)deit_(small|base|large)_patch16_LS', name)
    assert match, name
    kind, arch = match.groups()
    rope = 'axial' if 'axial' in kind else 'mixed' if 'mixed' in kind else None
    both = kind.endswith('_ape_')
    timm = f'vit_{arch}_patch16_rope{"_mixed" * (rope == "mixed")}{"_ape" * both}_224.naver_in1k' if rope else None
    licence = 'Apache-2.0' if timm else None
    ape = both or not rope
    return KnownWeights(name, 'RoPEViT', arch, rope, ape, False, 16, None, top1_224, top1_384, timm, licence, params)


def _swin(name: str, params: int, top1_224: float, top1_384: float) -> KnownWeights:
    match = re.fullmatch(r'swin_(?:rope_(axial|mixed)_)?(tiny|small|base)_patch4_window7_224', name)
    assert match, name
    rope, arch = match.groups()
    timm, licence = (None, None) if rope else (f'{name}.ms_in1k', 'MIT')
    return KnownWeights(name, 'RoPESwin', arch, rope, False, not rope, 4, 7, top1_224, top1_384, timm, licence, params)


KNOWN = (
    _vit('deit_small_patch16_LS', 22_059_496, 80.4, 79.4),
    _vit('deit_base_patch16_LS', 86_585_320, 83.4, 82.8),
    _vit('deit_large_patch16_LS', 304_374_760, 84.6, 84.2),
    _vit('rope_axial_deit_small_patch16_LS', 21_984_232, 80.9, 80.0),
    _vit('rope_axial_deit_base_patch16_LS', 86_434_792, 83.6, 83.9),
    _vit('rope_axial_deit_large_patch16_LS', 304_174_056, 84.7, 85.1),
    _vit('rope_mixed_deit_small_patch16_LS', 21_988_840, 80.9, 81.8),
    _vit('rope_mixed_deit_base_patch16_LS', 86_444_008, 83.8, 84.4),
    _vit('rope_mixed_deit_large_patch16_LS', 304_198_632, 84.8, 85.6),
    _vit('rope_axial_ape_deit_small_patch16_LS', 22_059_496, 80.7, 81.2),
    _vit('rope_axial_ape_deit_base_patch16_LS', 86_585_320, 83.7, 83.8),
    _vit('rope_axial_ape_deit_large_patch16_LS', 304_374_760, 84.7, 85.1),
    _vit('rope_mixed_ape_deit_small_patch16_LS', 22_064_104, 80.9, 81.7),
    _vit('rope_mixed_ape_deit_base_patch16_LS', 86_594_536, 83.8, 84.3),
    _vit('rope_mixed_ape_deit_large_patch16_LS', 304_399_336, 84.9, 85.5),
    _swin('swin_tiny_patch4_window7_224', 28_288_354, 81.2, 78.9),
    _swin('swin_small_patch4_window7_224', 49_606_258, 82.9, 81.0),
    _swin('swin_base_patch4_window7_224', 87_768_224, 83.3, 81.2),
    _swin('swin_rope_axial_tiny_patch4_window7_224', 28_265_032, 81.3, 79.2),
    _swin('swin_rope_axial_small_patch4_window7_224', 49_558_600, 83.1, 80.9),
    _swin('swin_rope_axial_base_patch4_window7_224', 87_704_680, 83.6, 81.8),
    _swin('swin_rope_mixed_tiny_patch4_window7_224', 28_269_448, 81.4, 79.5),
    _swin('swin_rope_mixed_small_patch4_window7_224', 49_567_624, 83.0, 81.4),
    _swin('swin_rope_mixed_base_patch4_window7_224', 87_716_712, 83.7, 82.1),
)
