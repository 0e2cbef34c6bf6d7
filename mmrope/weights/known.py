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


@dataclass(frozen=True)
class FamilyWeights:
    """A published checkpoint of another family of ViTs with RoPE.

    Args:
        name: timm's name, or a repository of the Hugging Face Hub.
        backbone: the class that loads it.
        arch: size of that class.
        licence: as timm states it, or the repository.
        img_size: image size of training, in pixels, where the model depends on it; else ``None``.
        gated: whether the authors let only those download it who have accepted their terms.
        ungated: other names of the same weights, without a gate.
    """

    name: str
    backbone: str
    arch: str
    licence: str
    img_size: int | None = None
    gated: bool = False
    ungated: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint in the ``init_cfg`` of a backbone."""
        return f'hf-hub:{self.name}' if '/' in self.name else f'timm:{self.name}'

    def is_for(self, backbone: str, arch: str) -> bool:
        """Say whether these are weights for a size of a class, without a gate."""
        return (self.backbone, self.arch, self.gated) == (backbone, arch, False)


def _timm(backbone: str, licence: str, **names: str) -> tuple[FamilyWeights, ...]:
    """List timm's weights, several tags of a model divided by spaces; its name ends with the size of its images."""
    sizes = ('EVA02ViT', 'PEViT')
    return tuple(
        FamilyWeights(tag, backbone, arch, licence, int(tag.partition('.')[0][-3:]) if backbone in sizes else None)
        for arch, tags in names.items()
        for tag in tags.split()
    )


DINOV3_LICENCE, SAM_LICENCE = 'DINOv3', 'SAM'
DINOV3 = {  # names within the authors' repositories, sizes, and timm's names
    's16-pretrain-lvd1689m': ('small', 'vit_small_patch16_dinov3.lvd1689m'),
    's16plus-pretrain-lvd1689m': ('small_plus', 'vit_small_plus_patch16_dinov3.lvd1689m'),
    'b16-pretrain-lvd1689m': ('base', 'vit_base_patch16_dinov3.lvd1689m'),
    'l16-pretrain-lvd1689m': ('large', 'vit_large_patch16_dinov3.lvd1689m'),
    'h16plus-pretrain-lvd1689m': ('huge_plus', 'vit_huge_plus_patch16_dinov3.lvd1689m'),
    '7b16-pretrain-lvd1689m': ('7b', 'vit_7b_patch16_dinov3.lvd1689m'),
    'l16-pretrain-sat493m': ('large', 'vit_large_patch16_dinov3.sat493m'),
    '7b16-pretrain-sat493m': ('7b', 'vit_7b_patch16_dinov3.sat493m'),
}
FAMILY_WEIGHTS = (  # the open licences first
    *_timm(
        'DINOv3ViT',
        'Apache-2.0',
        small='vit_small_patch16_lingbot.robbyant',
        base='vit_base_patch16_lingbot.robbyant',
        large='vit_large_patch16_lingbot.robbyant',
        giant='vit_giant_patch16_lingbot.robbyant',
    ),
    *_timm(
        'PEViT',
        'Apache-2.0',
        tiny='vit_pe_core_tiny_patch16_384.fb',
        small='vit_pe_core_small_patch16_384.fb',
        base='vit_pe_core_base_patch16_224.fb',
        large='vit_pe_core_large_patch14_336.fb',
        giant='vit_pe_core_gigantic_patch14_448.fb',
        spatial_tiny='vit_pe_spatial_tiny_patch16_512.fb',
        spatial_small='vit_pe_spatial_small_patch16_512.fb',
        spatial_base='vit_pe_spatial_base_patch16_512.fb',
        spatial_large='vit_pe_spatial_large_patch14_448.fb',
        spatial_giant='vit_pe_spatial_gigantic_patch14_448.fb',
        lang_large='vit_pe_lang_large_patch14_448.fb vit_pe_lang_large_patch14_448.fb_tiling',
        lang_giant='vit_pe_lang_gigantic_patch14_448.fb vit_pe_lang_gigantic_patch14_448.fb_tiling',
    ),
    *_timm(
        'EVA02ViT',
        'MIT',
        tiny='eva02_tiny_patch14_224.mim_in22k eva02_tiny_patch14_336.mim_in22k_ft_in1k',
        small='eva02_small_patch14_224.mim_in22k eva02_small_patch14_336.mim_in22k_ft_in1k',
        base='eva02_base_patch14_224.mim_in22k eva02_base_patch14_448.mim_in22k_ft_in1k '
        'eva02_base_patch14_448.mim_in22k_ft_in22k eva02_base_patch14_448.mim_in22k_ft_in22k_in1k',
        large='eva02_large_patch14_224.mim_in22k eva02_large_patch14_224.mim_m38m '
        'eva02_large_patch14_448.mim_in22k_ft_in1k eva02_large_patch14_448.mim_in22k_ft_in22k '
        'eva02_large_patch14_448.mim_in22k_ft_in22k_in1k eva02_large_patch14_448.mim_m38m_ft_in1k '
        'eva02_large_patch14_448.mim_m38m_ft_in22k eva02_large_patch14_448.mim_m38m_ft_in22k_in1k',
        clip_base='eva02_base_patch16_clip_224.merged2b',
        clip_large='eva02_large_patch14_clip_224.merged2b eva02_large_patch14_clip_336.merged2b',
    ),
    *_timm(
        'SBBViT',
        'MIT',
        medium='vit_medium_patch16_rope_reg1_gap_256.sbb_in1k',
        mediumd='vit_mediumd_patch16_rope_reg1_gap_256.sbb_in1k',
        betwixt='vit_betwixt_patch16_rope_reg4_gap_256.sbb_in1k',
        base='vit_base_patch16_rope_reg1_gap_256.sbb_in1k',
    ),
    *(FamilyWeights(name, 'DINOv3ViT', arch, DINOV3_LICENCE) for arch, name in DINOV3.values()),
    *_timm(
        'DINOv3ViT',
        DINOV3_LICENCE,
        small='vit_small_patch16_dinov3_qkvb.lvd1689m',
        small_plus='vit_small_plus_patch16_dinov3_qkvb.lvd1689m',
        base='vit_base_patch16_dinov3_qkvb.lvd1689m',
        large='vit_large_patch16_dinov3_qkvb.lvd1689m vit_large_patch16_dinov3_qkvb.sat493m',
        huge_plus='vit_huge_plus_patch16_dinov3_qkvb.lvd1689m',
    ),
    *(
        FamilyWeights(
            f'facebook/dinov3-vit{name}', 'DINOv3ViT', arch, DINOV3_LICENCE, gated=True, ungated=(f'timm:{tag}',)
        )
        for name, (arch, tag) in DINOV3.items()
    ),
    *_timm(
        'DINOv3ViT',
        'FAIR non-commercial research',
        tiny='vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m',
        small='vit_small_patch16_dinov3_qkvb.eupe_lvd1689m',
        base='vit_base_patch16_dinov3_qkvb.eupe_lvd1689m',
    ),
    *_timm(
        'Sapiens2ViT',
        'Sapiens2',
        **{
            '0.1b': 'vit_base_patch16_sapiens2.fb',
            '0.4b': 'vit_large_patch16_sapiens2.fb',
            '0.8b': 'vit_huge_patch16_sapiens2.fb',
            '1b': 'vit_giant_patch16_sapiens2.fb',
            '5b': 'vit_5b_patch16_sapiens2.fb',
        },
    ),
    FamilyWeights('facebook/sam3', 'SAM3ViT', 'large', SAM_LICENCE, 336, gated=True),
)


def ungated_names(checkpoint: str) -> str:
    """Say which names give the weights of a gated checkpoint without its gate; empty if it is not known to be gated."""
    for weights in FAMILY_WEIGHTS:
        if weights.gated and re.match(rf'{re.escape(weights.checkpoint)}(?![\w.-])', checkpoint):
            names = ' or '.join(weights.ungated)
            return f'; without a gate {names} gives the same weights' if names else '; there is no copy without a gate'
    return ''
