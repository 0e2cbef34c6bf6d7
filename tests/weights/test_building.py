"""``mmrope.build_backbone``: by name, with the published weights of the variant, or others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mmrope
from mmrope import RoPESwin, RoPEViT, build_backbone
from mmrope.weights.known import KNOWN
from mmrope.weights.loading import load_pretrained
from tests.helpers.hub import Hub
from tests.helpers.published import as_file, swin, vit


@pytest.fixture(autouse=True)
def _cheap_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ('backbone', 'vit'):
        monkeypatch.setattr(
            f'mmrope.models.{module}.trunc_normal_', lambda x, std: torch.nn.init.uniform_(x, -std, std)
        )


def features(model: torch.nn.Module) -> tuple[Tensor, ...]:
    assert not model.training
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 3 * 70 * 90).view(1, 3, 70, 90))


def test_names_are_classes_and_sizes() -> None:
    with torch.device('meta'):
        for name, cls, dims in (
            ('rope_vit_tiny', RoPEViT, 128),
            ('rope_vit_large', RoPEViT, 1024),
            ('rope_swin_base', RoPESwin, 128),
        ):
            model = build_backbone(name)
            assert type(model) is cls and model.embed_dims == dims


def test_arguments_reach_the_class() -> None:
    model = build_backbone('rope_vit_tiny', rope='axial', ape=True, window_size=4, out_indices=(2, 5))
    assert [tuple(x.shape) for x in features(model)] == [(1, 128, 5, 6)] * 2
    with pytest.raises(TypeError, match='windows'):
        build_backbone('rope_vit_tiny', windows=4)


@pytest.mark.parametrize(
    'name, state, repository, kwargs',
    [
        ('rope_vit_small', lambda: vit('small'), 'rope_mixed_deit_small_patch16_LS', {}),
        ('rope_vit_small', lambda: vit('small', 'axial'), 'rope_axial_deit_small_patch16_LS', dict(rope='axial')),
        ('rope_vit_small', lambda: vit('small', ape=True), 'rope_mixed_ape_deit_small_patch16_LS', dict(ape=True)),
        ('rope_vit_small', lambda: vit('small', None, True), 'deit_small_patch16_LS', dict(rope=None, ape=True)),
        ('rope_swin_tiny', lambda: swin('tiny'), 'swin_rope_mixed_tiny_patch4_window7_224', dict(window_size=5)),
    ],
    ids=['mixed', 'axial', 'mixed_ape', 'ape', 'swin'],
)
def test_pretrained_true_takes_the_published_weights_of_the_variant(
    hub: Hub, name: str, state: Callable, repository: str, kwargs: dict
) -> None:
    hub.files[f'naver-ai/{repository}', 'pytorch_model.bin'] = as_file(state())
    model = build_backbone(name, pretrained=True, **kwargs)
    assert hub.downloads() == 1
    other = (RoPEViT if 'vit' in name else RoPESwin)(name.split('_')[-1], **kwargs).eval()
    load_pretrained(other, f'hf-hub:naver-ai/{repository}')
    # norms of a Swin's maps that classification does not have start as they are
    assert all(torch.equal(a, b) for a, b in zip(features(model), features(other)))


def test_every_published_checkpoint_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr('mmrope.weights.building.load_pretrained', lambda model, checkpoint: asked.append(checkpoint))
    with torch.device('meta'):
        for weights in KNOWN:
            name = f'rope_{weights.backbone.removeprefix("RoPE").lower()}_{weights.arch}'
            build_backbone(name, pretrained=True, **{k: v for k, v in weights.arguments.items() if k != 'arch'})
    assert asked == [weights.checkpoint for weights in KNOWN]


def test_weights_from_a_path_and_from_a_url(hub: Hub, tmp_path: Path) -> None:
    theirs = build_backbone('rope_vit_tiny')
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in theirs.state_dict().items()}}, tmp_path / 'model.pth')
    hub.files['', '/files/model.pth'] = (tmp_path / 'model.pth').read_bytes()
    for source in (str(tmp_path / 'model.pth'), f'{hub.url}/files/model.pth'):
        ours = build_backbone('rope_vit_tiny', pretrained=source, window_size=2)
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    'arguments, words',
    [
        (
            ('rope_vit_huge', False, {}),
            "rope_vit_tiny, rope_vit_small, .*, dinov3_vit_tiny, .*, but got 'rope_vit_huge'",
        ),
        (
            ('rope_vit_tiny', True, {}),
            r"pretrained=True.*rope_vit_tiny.*rope='mixed'[^=]*$",  # no other is listed
        ),
        (
            ('rope_vit_base', True, dict(rope=None)),
            r"rope_vit_base.*rope=None\W[^=]*rope=None, ape=True\W.*rope='axial'",
        ),
        (
            ('rope_swin_tiny', True, dict(rpb=True)),
            r"rope='mixed', rpb=True\W.*rope=None, rpb=True\W[^=]*rope='axial'\W[^=]*rope='mixed'[^=]*$",
        ),
        (('rope_vit_tiny', False, dict(arch='base')), "arch .*'base'.*name"),
        (('rope_vit_tiny', True, dict(init_cfg={})), r'init_cfg .*\{\}.*pretrained'),
    ],
)
def test_wrong_arguments_are_named_with_the_choices(arguments: tuple, words: str) -> None:
    name, pretrained, kwargs = arguments
    with torch.device('meta'), pytest.raises(ValueError, match=words):
        build_backbone(name, pretrained, **kwargs)


def test_published_weights_by_their_name_fit_or_say_what_to_change(hub: Hub) -> None:
    name = 'rope_axial_deit_small_patch16_LS'
    hub.files[f'naver-ai/{name}', 'pytorch_model.bin'] = as_file(vit('small', 'axial'))
    assert build_backbone('rope_vit_small', pretrained=name, rope='axial').blocks[0].attn.rope is not None
    with pytest.raises(ValueError, match="rope='axial'"):
        build_backbone('rope_vit_small', pretrained=name)


def test_it_is_public() -> None:
    assert 'build_backbone' in mmrope.__all__ and mmrope.build_backbone is build_backbone
