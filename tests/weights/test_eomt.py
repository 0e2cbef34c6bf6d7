"""Published EoMT models load whole: backbones are compared with timm's, heads by a table of the names in the files."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from mmrope import DINOv3ViT, RoPEViT
from mmrope.checkpoints.sources import CheckpointError
from mmrope.engine.complete_checkpoint_hook import CompleteCheckpoint, PublishedWeights
from mmrope.models import EoMT
from mmrope.weights import WeightsError
from mmrope.weights.converting import convert
from mmrope.weights.eomt import eomt_state_dict, is_published_eomt
from tests.helpers.timm_families import arguments, hugging_face_dinov3, randomise, renamed, tiny_timm

QUERIES, CLASSES, OPEN = 7, 5, 2
DINOV2 = dict(rope=None, ape=True, img_size=64, with_cls_token=True, num_registers=4, layer_scale_init_value=1e-5)
AUTHORS = {  # mmrope's names of the head's tensors, and theirs
    'queries': 'network.q.weight',
    **{f'classes.{kind}': f'network.class_head.{kind}' for kind in ('weight', 'bias')},
    **{f'masks.{i}.{kind}': f'network.mask_head.{i}.{kind}' for i in (0, 2, 4) for kind in ('weight', 'bias')},
    **{
        f'upscale.{i}.{ours}': f'network.upscale.{i}.{theirs}'
        for i in (0, 1)
        for ours, theirs in {
            '0.weight': 'conv1.weight',
            '0.bias': 'conv1.bias',
            '2.weight': 'conv2.weight',
            '3.weight': 'norm.weight',
            '3.bias': 'norm.bias',
        }.items()
    },
}
TRANSFORMERS = {
    ours: re.sub(r'mask_head\.(\d)', lambda found: f'mask_head.fc{int(found[1]) // 2 + 1}', name)
    .replace('network.q.', 'query.')
    .replace('network.class_head.', 'class_predictor.')
    .replace('network.upscale.', 'upscale_block.block.')
    .replace('.norm.', '.layernorm2d.')
    .replace('network.', '')
    for ours, name in AUTHORS.items()
}
OTHERS = {  # buffers that the files hold beside the weights
    True: (
        'network.attn_mask_probs',
        'network.encoder.pixel_mean',
        'network.encoder.pixel_std',
        'criterion.empty_weight',
    ),
    False: ('attn_mask_probs', 'criterion.empty_weight'),
}


class Segmenter(nn.Module):
    def __init__(self, backbone: RoPEViT, classes: int = CLASSES) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Module()
        self.decode_head.eomt = EoMT(backbone.embed_dims, classes, QUERIES, OPEN)


def dinov2(**changes: Any) -> tuple[nn.Module, RoPEViT]:
    """timm's DINOv2 with registers, tiny and with patches of 16 pixels as EoMT's authors build it, and ours."""
    theirs = timm.create_model(
        'vit_small_patch14_reg4_dinov2', img_size=64, patch_size=16, embed_dim=64, depth=3, num_heads=4, num_classes=0
    ).eval()
    randomise(theirs)
    arch = dict(embed_dims=64, depth=3, num_heads=4)
    return theirs, RoPEViT(arch, **{**DINOV2, **changes}, out_indices=(), final_norm=True, open_blocks=OPEN)


def dinov3() -> tuple[nn.Module, RoPEViT]:
    theirs = tiny_timm('vit_small_patch16_dinov3')
    settings = arguments('vit_small_patch16_dinov3', theirs)[1]
    return theirs, DINOv3ViT(**{**settings, 'out_indices': (), 'final_norm': True, 'open_blocks': OPEN})


def split(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's DINOv2 under transformers' names in EoMT."""
    new = {}
    for key, value in state.items():
        name = re.sub(r'^blocks\.', 'layers.', key).replace('.attn.proj.', '.attention.out_proj.')
        name = re.sub(r'\.ls(\d)\.gamma', r'.layer_scale\1.lambda1', name)
        if '.attn.qkv.' in name:
            for part, rows in zip('qkv', value.chunk(3)):
                new[name.replace('.attn.qkv.', f'.attention.{part}_proj.')] = rows
        else:
            new[name] = value
    names = {
        'cls_token': 'embeddings.cls_token',
        'reg_token': 'embeddings.register_tokens',
        'patch_embed.proj.weight': 'embeddings.patch_embeddings.projection.weight',
        'patch_embed.proj.bias': 'embeddings.patch_embeddings.projection.bias',
        'norm.weight': 'layernorm.weight',
        'norm.bias': 'layernorm.bias',
    }
    new['embeddings.position_embeddings.weight'] = new.pop('pos_embed')[0]
    return {names.get(key, key): value for key, value in new.items()}


def authors_dinov3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's DINOv3 under the names of EoMT's authors, who build on transformers' model."""
    return renamed(
        hugging_face_dinov3(state, 5),
        (r'^model\.layer\.', 'network.encoder.backbone.blocks.'),
        (r'^embeddings\.', 'network.encoder.backbone.patch_embed.'),
        (r'^norm\.', 'network.encoder.backbone.norm.'),
    )


def eomt_dinov3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's DINOv3 under transformers' names in EoMT."""
    return renamed(hugging_face_dinov3(state, 5), (r'^model\.layer\.', 'layers.'), (r'^norm\.', 'layernorm.'))


def with_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f'network.encoder.backbone.{key}': value for key, value in state.items()}


LAYOUTS = {  # the backbones of timm and ours, how a file has the former, and the names of its head
    'authors_dinov2': (dinov2, with_prefix, AUTHORS),
    'transformers_dinov2': (dinov2, split, TRANSFORMERS),
    'authors_dinov3': (dinov3, authors_dinov3, AUTHORS),
    'transformers_dinov3': (dinov3, eomt_dinov3, TRANSFORMERS),
}


def published(layout: str, backbone: dict[str, Tensor], head: EoMT) -> dict[str, Tensor]:
    _, rename, names = LAYOUTS[layout]
    state = head.state_dict()
    assert set(names) == set(state)
    others = {name: torch.ones(2) for name in OTHERS[names is AUTHORS]}
    return {**rename(backbone), **{names[key]: value for key, value in state.items()}, **others}


def features(backbone: RoPEViT, x: Tensor) -> Tensor:
    (tokens,) = backbone(x)
    x = tokens.x
    for block in tokens.blocks:
        x = block(x)
    return tokens.norm(x)


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_published_model_loads_whole(layout: str, wrapped: bool) -> None:
    theirs, backbone = LAYOUTS[layout][0]()
    head = EoMT(backbone.embed_dims, CLASSES, QUERIES, OPEN)
    checkpoint: dict[str, Any] = published(layout, theirs.state_dict(), head)
    if wrapped:  # as Lightning saves a compiled model
        checkpoint = {'state_dict': renamed(checkpoint, (r'^network\.', 'network._orig_mod.')), 'epoch': 3}
    assert is_published_eomt(checkpoint)
    model = Segmenter(backbone).eval()
    complete = CompleteCheckpoint('model.bin')
    complete.note(model, checkpoint)
    unexpected = model.load_state_dict(checkpoint['state_dict'], strict=False).unexpected_keys
    complete.check(model)
    assert not unexpected
    for key, value in head.state_dict().items():
        assert torch.equal(model.decode_head.eomt.state_dict()[key], value), key
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(features(model.backbone, x), theirs.forward_features(x), rtol=0, atol=1e-4)


def test_a_training_starts_from_a_published_model() -> None:
    theirs, backbone = dinov2()
    model = Segmenter(backbone)
    checkpoint = published('transformers_dinov2', theirs.state_dict(), model.decode_head.eomt)
    PublishedWeights('it').after_load_checkpoint(SimpleNamespace(model=model), checkpoint)
    assert set(checkpoint['state_dict']) == set(model.state_dict())


def test_a_file_of_ours_is_left_alone() -> None:
    model = Segmenter(dinov2()[1])
    state = model.state_dict()
    assert not is_published_eomt(state) and not is_published_eomt({'state_dict': state})
    assert not is_published_eomt({'query.weight': torch.ones(2)})
    checkpoint = {'state_dict': dict(state)}
    CompleteCheckpoint('it').note(model, checkpoint)
    assert list(checkpoint['state_dict']) == list(state)


def test_other_classes_are_named_before_a_test() -> None:
    theirs, backbone = dinov2()
    checkpoint = published('authors_dinov2', theirs.state_dict(), EoMT(64, CLASSES, QUERIES, OPEN))
    model = Segmenter(backbone, classes=CLASSES + 1)
    complete = CompleteCheckpoint('it')
    complete.note(model, checkpoint)
    state = {key: value for key, value in checkpoint['state_dict'].items() if '.classes.' not in key}
    model.load_state_dict(state, strict=False)
    with pytest.raises(CheckpointError, match='it does not fit .* for 2 of .* decode_head.eomt.classes.weight'):
        complete.check(model)


@pytest.mark.parametrize('mean', [0.0, -0.3])
def test_differences_from_dinov3_are_refused(mean: float) -> None:
    """Those that EoMT's authors publish have the right names and shapes."""
    theirs, backbone = dinov3()
    model = Segmenter(backbone)
    state = {
        key: torch.randn_like(value) * 0.02 + (mean if re.search(r'norm\d?\.weight', key) else 0)
        for key, value in theirs.state_dict().items()
    }
    checkpoint = published('authors_dinov3', state, model.decode_head.eomt)
    with pytest.raises(WeightsError, match="it: these are no weights, but differences from DINOv3's"):
        eomt_state_dict(model, checkpoint, 'it')


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(rope='axial'), 'the weights were trained without RoPE: set rope=None'),
        (dict(num_registers=0), 'reg_token'),
        (dict(ape=False), 'ape=True'),
    ],
)
def test_weights_of_dinov2_say_what_model_they_need(changes: dict[str, Any], words: str) -> None:
    theirs, backbone = dinov2(**changes)
    model = Segmenter(backbone)
    checkpoint = published('authors_dinov2', theirs.state_dict(), model.decode_head.eomt)
    if 'num_registers' in changes:  # registers without a place in the model are left out
        assert 'backbone.reg_token' not in eomt_state_dict(model, checkpoint, 'it')
        return
    with pytest.raises(WeightsError, match=words):
        eomt_state_dict(model, checkpoint, 'it')


def test_a_backbone_of_eomt_is_converted(tmp_path: Any) -> None:
    theirs, backbone = dinov2()
    path = str(tmp_path / 'model.pth')
    torch.save(published('authors_dinov2', theirs.state_dict(), EoMT(64, CLASSES, QUERIES, OPEN)), path)
    converted = convert(path)
    assert converted.family == 'RoPEViT' and converted.rules == ('none',)
    torch.save(converted.state, path)
    again = convert(path)
    assert again.family == 'RoPEViT' and set(again.state) == set(backbone.state_dict())
