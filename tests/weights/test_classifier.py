"""Published classifiers in MMPreTrain's ImageClassifier: timm's logits for the ViTs, an oracle's for the Swins."""

from collections.abc import Callable

import pytest
import timm
import torch
from mmengine.registry import MODELS, DefaultScope

from mmrope.weights import WeightsError
from mmrope.weights.classifier import classifier_state_dict, is_image_classifier, is_published_classifier
from mmrope.weights.known import KNOWN, KnownWeights
from tests.helpers.published import SWIN_SIZES, swin, vit
from tests.helpers.upstream_swin import upstream_swin

pytest.importorskip('mmpretrain')
VITS = {weights.name: weights for weights in KNOWN if weights.timm and weights.backbone == 'RoPEViT'}
SIZES = [(224, 224), (384, 384), (224, 384)]


def random_timm(weights: KnownWeights, size: tuple[int, int]) -> torch.nn.Module:
    """timm's model with random weights, each large enough to matter; logits are of order 1.

    It is made for the size, since timm resizes an absolute embedding with antialias.
    """
    model = timm.create_model(weights.timm.partition('.')[0], img_size=size).eval()
    for name, param in model.named_parameters():
        if 'gamma' in name or 'pos_embed' in name or 'cls_token' in name:
            torch.nn.init.normal_(param, std=0.5)
    torch.nn.init.normal_(model.head.weight, std=model.embed_dim**-0.5)
    torch.nn.init.normal_(model.head.bias)
    return model


def as_published(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The authors' file of timm's weights: the frequencies of all heads in one axis, and coordinates."""
    published = {key: value for key, value in state.items() if not key.startswith('rope.')}
    if 'rope.freqs' in state:
        published |= {'freqs': state['rope.freqs'].flatten(2), 'freqs_t_x': torch.zeros(196)}
    return {'model': published}


def image_classifier(weights: KnownWeights, channels: int, **arguments: object) -> torch.nn.Module:
    """MMPreTrain's classifier around one of mmrope's backbones."""
    backbone = dict(type=f'mmrope.{weights.backbone}', **weights.arguments, **arguments)
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=channels)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).eval()


def cases() -> list:
    """Small models at the odd size; the rest takes longer."""
    return [
        pytest.param(
            name,
            size,
            id=f'{name}-{size[0]}x{size[1]}',
            marks=() if (weights.arch, size) == ('small', (224, 384)) else pytest.mark.slow,
        )
        for name, weights in VITS.items()
        for size in SIZES
    ]


@pytest.mark.parametrize('name, size', cases())
def test_logits_are_timms(name, size, close: Callable[..., None]) -> None:
    theirs = random_timm(VITS[name], size)
    ours = image_classifier(VITS[name], theirs.embed_dim, img_size=size)
    checkpoint = as_published(theirs.state_dict())
    assert is_image_classifier(ours) and is_published_classifier(checkpoint)
    ours.load_state_dict(classifier_state_dict(ours, checkpoint, name))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        close(ours(x), theirs(x))


@pytest.mark.parametrize('rope', ['axial', 'mixed'])
def test_logits_of_a_swin_are_the_oracles(rope: str, close: Callable[..., None]) -> None:
    (weights,) = [w for w in KNOWN if (w.backbone, w.arch, w.rope) == ('RoPESwin', 'tiny', rope)]
    state = swin('tiny', rope)
    model = image_classifier(weights, 768)
    model.load_state_dict(classifier_state_dict(model, {'model': state}, weights.name))
    x = torch.randn(2, 3, 64, 96)
    features = upstream_swin(state, x, *SWIN_SIZES['tiny'][1:]).mean((1, 2))
    with torch.no_grad():
        close(model(x), features @ state['head.weight'].T.double() + state['head.bias'])


def test_logits_of_a_swin_without_rotation_are_timms(close: Callable[..., None]) -> None:
    (weights,) = [weights for weights in KNOWN if weights.rpb and weights.arch == 'tiny']
    theirs = timm.create_model(weights.timm.partition('.')[0]).eval()
    torch.nn.init.normal_(theirs.head.fc.weight, std=theirs.num_features**-0.5)
    checkpoint = dict(theirs.state_dict())
    model = image_classifier(weights, 768)
    assert is_published_classifier(checkpoint)
    model.load_state_dict(classifier_state_dict(model, checkpoint, weights.name))
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        close(model(x), theirs(x))


def test_only_whole_classifiers_under_their_own_names_are_recognised() -> None:
    state = vit('small', depth=1)
    backbone = {key: value for key, value in state.items() if not key.startswith('head.')}
    within = {f'backbone.{key}': value for key, value in backbone.items()}
    assert is_published_classifier(state) and is_published_classifier({'state_dict': state})
    assert not is_published_classifier(backbone) and not is_published_classifier({'state_dict': within})
    assert not is_published_classifier({'state_dict': {**within, 'head.fc.weight': state['head.weight']}})
    with pytest.raises(WeightsError, match='weights.*state_dict'):
        is_published_classifier({'state_dict': {}})
    assert not is_image_classifier(torch.nn.Linear(1, 1))


def test_weights_of_another_variant_are_an_error() -> None:
    model = image_classifier(VITS['rope_mixed_deit_small_patch16_LS'], 384)
    with pytest.raises(WeightsError, match=r"a\.pth.*RoPEViT.*rope='axial'.*rope\.freqs"):
        classifier_state_dict(model, vit('small', 'axial'), 'a.pth')


@pytest.mark.parametrize('missing', ['head.weight', 'head.bias'])
def test_missing_parts_of_the_head_stay_out(missing: str) -> None:
    model = image_classifier(VITS['rope_mixed_deit_small_patch16_LS'], 384)
    state = vit('small')
    del state[missing]
    converted = classifier_state_dict(model, state, 'a.pth')
    assert set(model.state_dict()) - set(converted) == {f'head.fc.{missing[5:]}'}
