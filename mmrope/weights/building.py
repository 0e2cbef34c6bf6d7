"""Building a backbone with weights by its name, for plain Python."""

from typing import Any

from ..models import RoPESwin, RoPEViT, families, swin, vit
from .known import FAMILY_WEIGHTS, KNOWN
from .loading import load_pretrained

NAMES: dict[str, tuple[type[RoPEViT | RoPESwin], str]] = {
    **{f'rope_vit_{arch}': (RoPEViT, arch) for arch in vit.ARCHS},
    **{f'rope_swin_{arch}': (RoPESwin, arch) for arch in swin.ARCHS},
    **{
        f'{cls.__name__.removesuffix("ViT").lower()}_vit_{arch}': (cls, arch)
        for cls in families.FAMILIES
        for arch in cls.ARCHS
    },
}


def build_backbone(name: str, pretrained: bool | str = False, **kwargs: Any) -> RoPEViT | RoPESwin:
    """Build a backbone in eval mode, with random, published or other weights.

    Args:
        name: ``'rope_vit_small'``, ``'rope_swin_tiny'``, ``'dinov3_vit_base'``, ``'pe_vit_spatial_base'``, ...: the
            class and its ``arch``.
        pretrained: ``True`` for the published ImageNet weights of the variant that the arguments ask for, ``False`` for
            random weights, or the source of the weights: a published name (``mmrope weights``), a path, a URL,
            ``'hf-hub:OWNER/NAME'`` or ``'timm:NAME'``.
        kwargs: arguments of the class. ``KnownWeights.arguments`` holds those
            that give the features of a published classifier before its head.

    Returns:
        The backbone; call ``train()`` to train it.

    Raises:
        ValueError: if ``name`` is unknown, an argument is out of range, no weights are published for the variant, or
            the weights cannot be fetched or do not fit.
        FileNotFoundError: if ``pretrained`` is a path without a file.
    """
    if name not in NAMES:
        raise ValueError(f'name must be one of {", ".join(NAMES)}, but got {name!r}')
    for argument, instead in (('arch', 'name'), ('init_cfg', 'pretrained')):
        if argument in kwargs:
            raise ValueError(f'{argument} must not be given, but got {kwargs[argument]!r}; {instead} sets it')
    backbone, arch = NAMES[name]
    model = backbone(arch, **kwargs)
    if pretrained is True:
        load_pretrained(model, _published_for(name, kwargs))
    elif pretrained:
        published = {weights.name: weights.checkpoint for weights in KNOWN}
        published |= {weights.name: weights.checkpoint for weights in FAMILY_WEIGHTS}
        load_pretrained(model, published.get(pretrained, pretrained))
    return model.eval()


def _published_for(name: str, kwargs: dict[str, Any]) -> str:
    """Find the published weights of a variant.

    Raises:
        ValueError: if there are none, or several.
    """
    backbone, arch = NAMES[name]
    if backbone not in (RoPEViT, RoPESwin):
        of_family = [weights for weights in FAMILY_WEIGHTS if weights.is_for(backbone.__name__, arch)]
        if len(of_family) == 1:
            return of_family[0].checkpoint
        names = ', '.join(weights.name for weights in of_family) or 'none'
        raise ValueError(f'pretrained=True: name the weights for {name}; published ones: {names}')
    of_arch = [weights for weights in KNOWN if (weights.backbone, weights.arch) == (backbone.__name__, arch)]
    rope, ape, rpb = kwargs.get('rope', 'mixed'), kwargs.get('ape', False), kwargs.get('rpb', False)
    for weights in of_arch:
        if (weights.rope, weights.ape, weights.rpb) == (rope, ape, rpb):
            return weights.checkpoint
    asked = _variant(rope, ape, rpb)
    variants = [_variant(weights.rope, weights.ape, weights.rpb) for weights in of_arch]
    raise ValueError(
        f'pretrained=True: no weights are published for {name} with {asked}; '
        f'there are weights for: {"; ".join(variants) or "none of this size"}'
    )


def _variant(rope: str | None, ape: bool, rpb: bool) -> str:
    return f'rope={rope!r}' + ', ape=True' * ape + ', rpb=True' * rpb
