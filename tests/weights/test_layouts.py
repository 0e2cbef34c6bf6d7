"""Weights in every layout become the same model, and come back unchanged."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from mmrope import RoPESwin, RoPEViT
from mmrope.weights import WeightsError, load_converted, load_pretrained, to_mmrope, to_timm
from tests.helpers.published import SWIN_SIZES, VIT_SIZES, swin, vit
from tests.helpers.upstream_swin import upstream_swin

VARIANTS = {  # of timm's names
    '': dict(rope='axial'),
    '_mixed': dict(rope='mixed'),
    '_ape': dict(rope='axial', ape=True),
    '_mixed_ape': dict(rope='mixed', ape=True),
}
variants = pytest.mark.parametrize('suffix, variant', VARIANTS.items(), ids=lambda v: v if isinstance(v, str) else '')
FULL_SIZES = ['small', *(pytest.param(size, marks=pytest.mark.slow) for size in ('base', 'large'))]


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def random_timm(size: str, suffix: str, image: tuple[int, int]) -> nn.Module:
    """A ViT of timm's with random weights, its position terms and LayerScale large enough to matter."""
    model = timm.create_model(f'vit_{size}_patch16_rope{suffix}_224', img_size=image).eval()
    for name, param in model.named_parameters():
        if name.endswith(('gamma_1', 'gamma_2')):
            nn.init.uniform_(param, 0.2, 1)
        elif name.endswith(('pos_embed', 'cls_token', 'bias')):
            nn.init.normal_(param, std=0.1)
    return model


def as_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's layout to the authors', as facts about their files have it."""
    renamed = {key: value for key, value in state.items() if key != 'rope.freqs'}
    if 'rope.freqs' in state:
        renamed['freqs'] = state['rope.freqs'].flatten(2)
        renamed |= {'freqs_t_x': torch.zeros(196), 'freqs_t_y': torch.zeros(196)}
    return renamed


@variants
@pytest.mark.parametrize('size', FULL_SIZES)
@pytest.mark.parametrize('image', [(224, 224), (384, 384), (224, 384)])
def test_features_are_timms(size: str, suffix: str, variant: dict, image: tuple[int, int], tmp_path: Path) -> None:
    """Of weights that went from timm to the authors' layout, into a file and into mmrope."""
    theirs = random_timm(size, suffix, image)
    torch.save({'model': as_published(theirs.state_dict())}, tmp_path / 'model.pth')
    ours = RoPEViT(size, img_size=image, with_cls_token=True, final_norm=True, **variant).eval()
    report = load_pretrained(ours, str(tmp_path / 'model.pth'))
    assert all(key.startswith(('head.', 'freqs_t_')) for key in report.dropped)
    x = torch.randn(1, 3, *image)
    with torch.no_grad():
        expected = theirs.forward_features(x)[:, 1:].transpose(1, 2)
        torch.testing.assert_close(ours(x)[0].flatten(2), expected, rtol=0, atol=1e-5)


@variants
@pytest.mark.parametrize('size', VIT_SIZES)
def test_timm_to_mmrope_and_back_is_the_identity(size: str, suffix: str, variant: dict) -> None:
    with torch.device('meta'):
        shapes = timm.create_model(f'vit_{size}_patch16_rope{suffix}_224').state_dict()
    state = {
        key: torch.randn(value.shape) if 'freqs' in key else torch.full(value.shape, float(i))
        for i, (key, value) in enumerate(shapes.items())
    }
    converted = to_mmrope(state).state
    assert equal(to_timm(converted), state)
    assert equal(to_mmrope(to_timm(converted)).state, converted)


@pytest.mark.parametrize('size', VIT_SIZES)
@pytest.mark.parametrize('rope, ape', [*itertools.product(('mixed', 'axial'), (False, True)), (None, True)])
def test_a_published_vit_fills_every_parameter(size: str, rope: str | None, ape: bool) -> None:
    """The 12 RoPE models and the 3 baselines, with the defaults of a config for detection."""
    with torch.device('meta'):
        state = vit(size, rope, ape)
        model = RoPEViT(size, rope=rope, ape=ape)
    report = load_converted(model, to_mmrope(state, model.blocks[0].attn.num_heads), 'published')
    assert not report.problems and sorted(report.loaded) == sorted(model.state_dict())
    placed = len(set(state) - set(report.dropped))
    assert placed == len(report.loaded) - (VIT_SIZES[size][1] - 1 if rope == 'mixed' else 0)


@pytest.mark.parametrize('rope', ['mixed', 'axial'])
@pytest.mark.parametrize('size', SWIN_SIZES)
def test_a_published_swin_computes_its_definition(size: str, rope: str) -> None:
    dim, depths, heads = SWIN_SIZES[size]
    state = swin(size, rope)
    model = RoPESwin(size, rope=rope).double().eval()
    report = load_converted(model, to_mmrope(state), 'published')
    assert report.initial == [f'norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')]
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        ours = model(x.double())[3].permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, upstream_swin(state, x, depths, heads), rtol=0, atol=1e-5)


def test_a_swin_without_rope_computes_its_definition() -> None:
    """Microsoft's layout, with a bias table."""
    dim, depths, heads = SWIN_SIZES['tiny']
    state = swin('tiny', rope=None, rpb=True)
    model = RoPESwin('tiny', rope=None, rpb=True).double().eval()
    load_converted(model, to_mmrope(state), 'published')
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        ours = model(x.double())[3].permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, upstream_swin(state, x, depths, heads), rtol=0, atol=1e-9)


def test_timms_swin_is_read_too(close: Callable[..., None]) -> None:
    """Its step down is the first part of a stage, and not the last."""
    theirs = timm.create_model('swin_tiny_patch4_window7_224').eval()
    ours = RoPESwin('tiny', rope=None, rpb=True).eval()
    load_converted(ours, to_mmrope(theirs.state_dict()), 'timm')
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        close(ours(x)[3].permute(0, 2, 3, 1), theirs.forward_features(x))


def test_a_swin_has_no_layout_in_timm() -> None:
    with pytest.raises(WeightsError, match='timm .*Swin'):
        to_timm(to_mmrope(swin('tiny')).state)


def test_mmropes_own_weights_stay_as_they_are() -> None:
    for model in (RoPEViT('tiny', ape=True), RoPESwin('tiny', rpb=True)):
        converted = to_mmrope(model.state_dict())
        assert equal(converted.state, model.state_dict()) and not converted.renamed and not converted.dropped


def test_weights_of_another_network_are_named() -> None:
    with pytest.raises(WeightsError, match=r'ViT.*Swin.*conv1\.weight'):
        to_mmrope({'conv1.weight': torch.ones(1)})
