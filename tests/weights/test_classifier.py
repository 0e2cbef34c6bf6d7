"""Whole classifiers: MMPreTrain's ImageClassifier with the weights of timm's RoPE ViTs gives timm's logits."""

import pytest
import timm
import torch
from mmengine.registry import MODELS, DefaultScope

from mmrope.weights.classifier import classifier_state_dict
from mmrope.weights.known import KNOWN, KnownWeights

VITS = {weights.name: weights for weights in KNOWN if weights.timm}
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


def from_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm keeps the frequencies of all blocks in one tensor; all other keys are the same."""
    ours = {key: value for key, value in state.items() if not key.startswith('rope.')}
    for i, freqs in enumerate(state['rope.freqs'].unbind(1) if 'rope.freqs' in state else ()):
        ours[f'blocks.{i}.attn.rope.freqs'] = freqs
    return ours


def image_classifier(weights: KnownWeights, channels: int, **arguments: object) -> torch.nn.Module:
    """MMPreTrain's classifier around one of mmrope's backbones."""
    backbone = dict(type=f'mmrope.{weights.backbone}', **weights.arguments, **arguments)
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=channels)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).eval()


def cases() -> list:
    """Small models at every size, a larger one at the odd size; the rest takes longer."""
    fast = {('small', size) for size in SIZES} | {('base', (224, 384))}
    return [
        pytest.param(
            name,
            size,
            id=f'{name}-{size[0]}x{size[1]}',
            marks=() if (weights.arch, size) in fast else pytest.mark.slow,
        )
        for name, weights in VITS.items()
        for size in SIZES
    ]


@pytest.mark.parametrize('name, size', cases())
def test_logits_are_timms(name, size, close):
    theirs = random_timm(VITS[name], size)
    ours = image_classifier(VITS[name], theirs.embed_dim, img_size=size)
    ours.load_state_dict(classifier_state_dict(from_timm(theirs.state_dict())))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        close(ours(x), theirs(x))


def test_a_swin_classifies_by_the_mean_of_its_last_map(close):
    weights = next(weights for weights in KNOWN if weights.name == 'swin_rope_mixed_tiny_patch4_window7_224')
    model = image_classifier(weights, 768)
    with torch.no_grad():
        x = torch.randn(2, 3, 64, 96)
        model.backbone.out_type = 'featmap'
        features = model.backbone(x)[0].mean((2, 3))
        model.backbone.out_type = 'avg_featmap'
        close(model(x), features @ model.head.fc.weight.T + model.head.fc.bias)


def test_only_the_names_change():
    state = {name: torch.randn(2) for name in ('head.weight', 'blocks.0.attn.qkv.weight', 'norm.bias', 'head.bias')}
    renamed = classifier_state_dict(state)
    names = ['head.fc.weight', 'backbone.blocks.0.attn.qkv.weight', 'backbone.norm.bias', 'head.fc.bias']
    assert list(renamed) == names
    assert all(ours is theirs for ours, theirs in zip(renamed.values(), state.values()))


@pytest.mark.parametrize('missing', ['head.weight', 'head.bias'])
def test_a_state_without_its_head_is_refused(missing):
    state = {name: torch.zeros(1) for name in ('norm.weight', 'head.weight', 'head.bias') if name != missing}
    with pytest.raises(ValueError, match=f'state must hold the head .*has no {missing}'):
        classifier_state_dict(state)
