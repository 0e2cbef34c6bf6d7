"""Families of ViTs with RoPE, each a :class:`RoPEViT` with other defaults; a size is a row in a table.

A row holds ``embed_dims``, ``depth``, ``num_heads`` and ``mlp_ratio``, and the arguments in which a size differs from
the rest of its family.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..registry import MODELS
from .arguments import grid_of
from .vit import RoPEViT

SIZE = ('embed_dims', 'depth', 'num_heads', 'mlp_ratio')


def _size(embed_dims: int, depth: int, num_heads: int, hidden: int | None = None, **others: Any) -> dict[str, Any]:
    ratio = {} if hidden is None else {'mlp_ratio': hidden / embed_dims}
    return dict(embed_dims=embed_dims, depth=depth, num_heads=num_heads, **ratio, **others)


class Family(RoPEViT):
    """Base of the families.

    Args:
        arch: a name in ``ARCHS``, or a dict as :class:`RoPEViT` takes it; the family fills in the rest.
        settings: arguments of :class:`RoPEViT`, which override those of the family.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]]
    THETAS: ClassVar[dict[str, float]] = {'axial': 1e4}
    DEFAULTS: ClassVar[dict[str, Any]]

    def __init__(self, arch: str | dict = 'base', **settings: Any) -> None:
        if not isinstance(arch, Mapping) and not (isinstance(arch, str) and arch in self.ARCHS):
            raise ValueError(f'arch must be one of {", ".join(self.ARCHS)} or a dict, but got {arch!r}')
        row = self.merged(arch)
        size = {key: row.pop(key) for key in SIZE if key in row}
        if isinstance(arch, Mapping):  # what is no size is an error of RoPEViT's
            size |= {key: row.pop(key) for key in arch if key not in SIZE}
        settings = {'rope': 'axial', **row, **settings}
        if settings['rope'] == 'axial':
            settings.setdefault('rope_theta', self.THETAS['axial'])
        super().__init__(size, **self.completed(size, settings))

    @classmethod
    def merged(cls, arch: str | Mapping) -> dict[str, Any]:
        """Return size and arguments of a size of the family."""
        return {**cls.DEFAULTS, **(cls.ARCHS[arch] if isinstance(arch, str) else arch)}

    def completed(self, size: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with those that follow from others."""
        return settings

    def notes(self) -> dict[str, Any]:
        """Return what :class:`RoPEViT` notes, and the name of the family, which a subclass of a user's shares."""
        classes = type(self).__mro__
        return {**super().notes(), 'family': classes[classes.index(Family) - 1].__name__}


@MODELS.register_module()
class DINOv3ViT(Family):
    """ViT of DINOv3 (arXiv 2508.10104), and of LingBot-Vision (arXiv 2607.05247) and EUPE (arXiv 2603.22387).

    Frequencies are stored in checkpoints: published files hold periods that were rounded to bfloat16, which decide the
    features. The sizes ``'tiny'`` (of EUPE) and ``'giant'`` (of LingBot-Vision) are not DINOv3's.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'small_plus'``, ``'base'``, ``'large'``, ``'large_plus'``, ``'huge_plus'``,
            ``'giant'``, ``'7b'`` or a dict as :class:`RoPEViT` takes it.
        settings: arguments of :class:`RoPEViT`, which override those of the family.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {
        'tiny': _size(192, 12, 3),
        'small': _size(384, 12, 6),
        'small_plus': _size(384, 12, 6, 1536, mlp='swiglu'),
        'base': _size(768, 12, 12),
        'large': _size(1024, 24, 16),
        'large_plus': _size(1024, 24, 16, 4096, mlp='swiglu'),
        'huge_plus': _size(1280, 32, 20, 5120, mlp='swiglu'),
        'giant': _size(1536, 40, 24, 4096, mlp='swiglu'),
        '7b': _size(4096, 40, 32, 8192, mlp='swiglu'),
    }
    THETAS: ClassVar[dict[str, float]] = {'axial': 100.0}
    DEFAULTS: ClassVar[dict[str, Any]] = dict(
        positions=dict(rule='centred'),
        with_cls_token=True,
        num_registers=4,
        layer_scale_init_value=1e-5,
        norm_eps=1e-5,
    )

    def __init__(self, arch: str | dict = 'base', **settings: Any) -> None:
        super().__init__(arch, **settings)
        for block in self.blocks:
            if block.attn.rope is not None and settings.get('rope', 'axial') == 'axial':
                block.attn.rope.register_buffer('freqs', block.attn.rope.freqs)  # persistent from now on

    def weights_may_miss(self, key: str) -> bool:
        """Say that frequencies may be missing: timm's and Hugging Face's files hold none, and they are computed."""
        return key.endswith('.rope.freqs') and key in dict(self.named_buffers())


@MODELS.register_module()
class EVA02ViT(Family):
    """ViT of EVA-02 (arXiv 2303.11331), and of EVA-02-CLIP.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, ``'large'``, ``'clip_base'``, ``'clip_large'`` or a dict as
            :class:`RoPEViT` takes it.
        settings: arguments of :class:`RoPEViT`, which override those of the family. ``img_size`` is the size that
            the position embedding was learned at, and ``patch_size`` 14 or 16.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {
        'tiny': _size(192, 12, 3, 512),
        'small': _size(384, 12, 6, 1024),
        'base': _size(768, 12, 12, 2048, mlp_norm=True),
        'large': _size(1024, 24, 16, 2730, mlp_norm=True),
        'clip_base': _size(768, 12, 12, 2048, mlp_norm=True, attn_norm=True, patch_size=16),
        'clip_large': _size(1024, 24, 16, 2730, mlp_norm=True, attn_norm=True),
    }
    DEFAULTS: ClassVar[dict[str, Any]] = dict(
        mlp_ratio=8 / 3,
        patch_size=14,
        ape=True,
        positions=dict(rule='reference', ref=16),  # the grid of 224 pixels, at any size of training
        window_frame=True,
        with_cls_token=True,
        layer_scale_init_value=None,
        mlp='swiglu',
    )


@MODELS.register_module()
class PEViT(Family):
    """ViT of Perception Encoder (arXiv 2504.13181): core, spatial and lang.

    Positions scale to the grid of pretraining, as in its authors' detectors and in timm. Their image encoder counts
    tokens instead, ``positions=dict(rule='index', offset=1)``: the same at the size of pretraining.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, ``'large'`` or ``'giant'`` of PE core, one of these with
            ``'spatial_'`` before it, ``'lang_large'``, ``'lang_giant'`` or a dict as :class:`RoPEViT` takes it.
        settings: arguments of :class:`RoPEViT`, which override those of the family. ``img_size`` is the size of
            pretraining, from which the grid of the position embedding and the reference of positions follow.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {
        'tiny': _size(192, 12, 3, img_size=384),
        'small': _size(384, 12, 6, img_size=384),
        'base': _size(768, 12, 12, img_size=224),
        'large': _size(1024, 24, 16, img_size=336, patch_size=14),
        'giant': _size(1536, 50, 16, 8960, img_size=448, patch_size=14, with_cls_token=False),
        'spatial_tiny': _size(192, 12, 3, img_size=512),
        'spatial_small': _size(384, 12, 6, img_size=512),
        'spatial_base': _size(768, 12, 12, img_size=512),
        'spatial_large': _size(1024, 24, 16, img_size=448, patch_size=14),
        'spatial_giant': _size(
            1536, 50, 16, 8960, img_size=448, patch_size=14, with_cls_token=False, layer_scale_init_value=0.1
        ),
        'lang_large': _size(1024, 23, 16, img_size=448, patch_size=14, layer_scale_init_value=0.1),
        'lang_giant': _size(
            1536, 47, 16, 8960, img_size=448, patch_size=14, with_cls_token=False, layer_scale_init_value=0.1
        ),
    }
    DEFAULTS: ClassVar[dict[str, Any]] = dict(
        img_size=224,
        patch_size=16,
        ape=True,
        window_frame=True,
        with_cls_token=True,
        layer_scale_init_value=None,
        norm_eps=1e-5,
        pre_norm=True,
        pos_embed_resize='bilinear',
    )

    def completed(self, size: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with the reference of positions, the grid of pretraining."""
        ref = grid_of(settings['img_size'], settings['patch_size'])
        return {'positions': dict(rule='reference', ref=ref, offset=int(settings['with_cls_token'])), **settings}


@MODELS.register_module()
class SAM3ViT(Family):
    """Image backbone of SAM 3 (github.com/facebookresearch/sam3), for images of 1008 pixels there.

    Args:
        arch: ``'large'`` or a dict as :class:`RoPEViT` takes it.
        settings: arguments of :class:`RoPEViT`, which override those of the family. ``img_size`` is the size that the
            position embedding was learned at, which larger grids repeat.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {'large': _size(1024, 32, 16, 4736)}
    DEFAULTS: ClassVar[dict[str, Any]] = dict(
        img_size=336,
        patch_size=14,
        ape=True,
        positions=dict(rule='reference', ref=24),
        window_frame=True,
        window_size=24,
        layer_scale_init_value=None,
        norm_eps=1e-5,
        pre_norm=True,
        pos_embed_resize='tile',
    )

    def __init__(self, arch: str | dict = 'large', **settings: Any) -> None:
        super().__init__(arch, **settings)

    def completed(self, size: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with the blocks of global attention, the last of each quarter."""
        depth = size.get('depth', 4)
        last = sorted({depth * quarter // 4 - 1 for quarter in range(1, 5)} - {-1}) if depth in range(1, 1000) else ()
        return {'global_attn_indexes': last, **settings}


@MODELS.register_module()
class SBBViT(Family):
    """ViTs with RoPE and registers that timm trained on ImageNet ("searching for better baselines").

    Args:
        arch: ``'medium'``, ``'mediumd'``, ``'betwixt'``, ``'base'`` or a dict as :class:`RoPEViT` takes it.
        settings: arguments of :class:`RoPEViT`, which override those of the family.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {
        'medium': _size(512, 12, 8),
        'mediumd': _size(512, 20, 8),
        'betwixt': _size(640, 12, 10, num_registers=4),
        'base': _size(768, 12, 12),
    }
    DEFAULTS: ClassVar[dict[str, Any]] = dict(
        positions=dict(rule='reference', ref=16), num_registers=1, layer_scale_init_value=1e-5
    )


@MODELS.register_module()
class Sapiens2ViT(Family):
    """ViT of Sapiens2 (arXiv 2604.21681), for images of people.

    Keys and values that several heads share are repeated when weights load, and LayerScale of the MLPs, which Sapiens2
    does not have, is 1.

    Args:
        arch: ``'0.1b'``, ``'0.4b'``, ``'0.8b'``, ``'1b'``, ``'5b'`` or a dict as :class:`RoPEViT` takes it.
        settings: arguments of :class:`RoPEViT`, which override those of the family.

    Raises:
        ValueError: as :class:`RoPEViT`.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {
        '0.1b': _size(768, 12, 12),
        '0.4b': _size(1024, 24, 16),
        '0.8b': _size(1280, 32, 16),
        '1b': _size(1536, 40, 24),
        '5b': _size(2432, 56, 32),
    }
    THETAS: ClassVar[dict[str, float]] = {'axial': 100.0}
    DEFAULTS: ClassVar[dict[str, Any]] = dict(
        positions=dict(rule='centred'),
        with_cls_token=True,
        num_registers=8,
        layer_scale_init_value=1.0,
        mlp='swiglu',
        norm='rms',
        qk_norm=True,
    )

    def __init__(self, arch: str | dict = '0.1b', **settings: Any) -> None:
        super().__init__(arch, **settings)


FAMILIES = (DINOv3ViT, EVA02ViT, PEViT, SAM3ViT, SBBViT, Sapiens2ViT)
