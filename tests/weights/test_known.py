"""The table of known weights: every upstream model once, of the size it has, under timm's name where timm has it."""

import itertools

import pytest
import timm
import torch

import mmrope
from mmrope import RoPESwin, RoPEViT
from mmrope.weights.known import FAMILY_WEIGHTS, KNOWN, FamilyWeights, KnownWeights, ungated_names
from tests.helpers.timm_families import NAMES

each = pytest.mark.parametrize('weights', KNOWN, ids=lambda weights: weights.name)


def test_every_published_model_is_listed_once() -> None:
    prefixes = ('', 'rope_axial_', 'rope_mixed_', 'rope_axial_ape_', 'rope_mixed_ape_')
    sizes = ('small', 'base', 'large')
    names = {f'{prefix}deit_{size}_patch16_LS' for prefix, size in itertools.product(prefixes, sizes)}
    sizes = ('tiny', 'small', 'base')
    kinds = ('', 'rope_axial_', 'rope_mixed_')
    names |= {f'swin_{kind}{size}_patch4_window7_224' for kind, size in itertools.product(kinds, sizes)}
    assert len(KNOWN) == len(names) == 24
    assert {weights.name for weights in KNOWN} == names
    models = {(weights.backbone, weights.arch, weights.rope, weights.ape, weights.rpb) for weights in KNOWN}
    assert len(models) == 24


@each
def test_the_name_says_what_it_is(weights: KnownWeights) -> None:
    words = weights.name.split('_')
    assert weights.arch in words
    assert weights.rope == ('axial' if 'axial' in words else 'mixed' if 'mixed' in words else None)
    assert weights.ape == ('ape' in words or words[0] == 'deit')
    assert weights.rpb == (words[0] == 'swin' and 'rope' not in words)
    assert weights.backbone == ('RoPESwin' if 'swin' in words else 'RoPEViT')
    assert f'patch{weights.patch_size}' in words
    assert weights.window_size is None or f'window{weights.window_size}' in words
    with torch.device('meta'):
        model = {'RoPEViT': RoPEViT, 'RoPESwin': RoPESwin}[weights.backbone](**weights.arguments)
    assert model.patch_embed.patch_size == (weights.patch_size, weights.patch_size)


@each
def test_timm_has_it_under_that_name_with_that_licence_and_that_size(weights: KnownWeights) -> None:
    if weights.timm is None:
        assert weights.licence is None
        assert (weights.backbone == 'RoPESwin') == (weights.rope is not None)
        return
    assert timm.get_pretrained_cfg(weights.timm).license == weights.licence.lower()
    with torch.device('meta'):
        model = timm.create_model(weights.timm.partition('.')[0])
    assert sum(param.numel() for param in model.parameters()) == weights.params


@each
def test_parameters_are_those_of_the_backbone_and_its_head(weights: KnownWeights) -> None:
    with torch.device('meta'):
        model = {'RoPEViT': RoPEViT, 'RoPESwin': RoPESwin}[weights.backbone](**weights.arguments)
    channels = model.embed_dims if weights.backbone == 'RoPEViT' else model.num_features[-1]
    assert weights.params == sum(param.numel() for param in model.parameters()) + (channels + 1) * 1000


@pytest.mark.parametrize('weights', [weights for weights in KNOWN if weights.timm is None], ids=lambda w: w.name)
def test_other_sizes_are_those_of_the_models_without_rotation(weights: KnownWeights) -> None:
    """A Swin has frequencies, where they are learned, in place of its tables of relative position biases."""
    name = 'deit3_{}_patch16_224' if weights.backbone == 'RoPEViT' else 'swin_{}_patch4_window7_224'
    with torch.device('meta'):
        base = timm.create_model(name.format(weights.arch))
        model = {'RoPEViT': RoPEViT, 'RoPESwin': RoPESwin}[weights.backbone](**weights.arguments)
    tables = sum(param.numel() for key, param in base.named_parameters() if 'bias_table' in key)
    freqs = sum(param.numel() for key, param in model.named_parameters() if 'freqs' in key)
    assert (freqs > 0) == (weights.rope == 'mixed') and (tables > 0) == (weights.backbone == 'RoPESwin')
    assert weights.params == sum(param.numel() for param in base.parameters()) - tables + freqs


# The table in the authors' README: top-1 at 224 and 384 pixels.
PUBLISHED = {
    'rope_axial_ape_deit_small_patch16_LS': (80.7, 81.2),
    'rope_mixed_ape_deit_small_patch16_LS': (80.9, 81.7),
    'rope_axial_ape_deit_base_patch16_LS': (83.7, 83.8),
    'rope_mixed_ape_deit_base_patch16_LS': (83.8, 84.3),
    'rope_axial_ape_deit_large_patch16_LS': (84.7, 85.1),
    'rope_mixed_ape_deit_large_patch16_LS': (84.9, 85.5),
    'swin_tiny_patch4_window7_224': (81.2, 78.9),
    'swin_small_patch4_window7_224': (82.9, 81.0),
    'swin_base_patch4_window7_224': (83.3, 81.2),
}


def test_accuracies_are_those_of_the_authors() -> None:
    accuracies = {weights.name: (weights.top1_224, weights.top1_384) for weights in KNOWN}
    assert {name: accuracies[name] for name in PUBLISHED} == PUBLISHED
    assert all(79 < at_224 < 86 and 78 < at_384 < 86 for at_224, at_384 in accuracies.values())


@each
def test_weights_that_the_authors_do_not_publish_come_from_timm(weights: KnownWeights) -> None:
    assert weights.checkpoint == (f'timm:{weights.timm}' if weights.rpb else f'hf-hub:naver-ai/{weights.name}')


families = pytest.mark.parametrize('weights', FAMILY_WEIGHTS, ids=lambda weights: weights.name)
LICENCES = {
    'Apache-2.0': 'apache-2.0',
    'MIT': 'mit',
    'DINOv3': 'dinov3-license',
    'Sapiens2': 'sapiens2-license',
    'FAIR non-commercial research': 'fair-noncommercial-research-license',
}


def test_every_checkpoint_of_timm_is_listed_once() -> None:
    names = {weights.name for weights in FAMILY_WEIGHTS} | {weights.timm for weights in KNOWN}
    assert len({weights.name for weights in FAMILY_WEIGHTS}) == len(FAMILY_WEIGHTS)
    listed = {tag for tag in timm.list_pretrained() if tag.partition('.')[0] in NAMES}
    assert len(listed) == 75 and listed <= names


@families
def test_a_checkpoint_is_as_timm_has_it(weights: FamilyWeights) -> None:
    assert weights.arch in getattr(mmrope, weights.backbone).ARCHS
    if '/' in weights.name:
        assert weights.gated and weights.checkpoint == f'hf-hub:{weights.name}'
        return
    cfg = timm.get_pretrained_cfg(weights.name)
    assert cfg.hf_hub_id and cfg.license == LICENCES[weights.licence] and not weights.gated
    assert weights.img_size in (None, cfg.input_size[-1])


def test_what_is_gated_names_what_is_not() -> None:
    gated = {weights.name: weights for weights in FAMILY_WEIGHTS if weights.gated}
    assert len(gated) == 9
    for name, weights in gated.items():
        advice = ungated_names(f'hf-hub:{name}/model.safetensors')
        assert (weights.ungated[0] in advice) if weights.ungated else 'no copy' in advice
        assert {
            other.name for other in FAMILY_WEIGHTS if f'timm:{other.name}' in weights.ungated
        } or not weights.ungated
    assert ungated_names('hf-hub:facebook/dinov3-vits16plus-pretrain-lvd1689m').count('small_plus') == 1
    assert not ungated_names('hf-hub:naver-ai/it') and not ungated_names('hf-hub:facebook/sam3.1')
