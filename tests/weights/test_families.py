"""Weights of every family, in every layout, compute what timm computes; a file of mmrope is never permuted again."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import mmrope
from mmrope.checkpoints.sources import SourceError
from mmrope.weights import WeightsError, load_converted, load_pretrained, to_mmrope, to_timm
from mmrope.weights.converting import convert, describe, save
from tests.helpers.hub import Hub
from tests.helpers.plain_vit import plain_vit
from tests.helpers.timm_families import (
    HEADS,
    NAMES,
    REPEATS,
    arguments,
    eva02_detector,
    hugging_face_dinov3,
    hugging_face_sapiens2,
    names_of_timm,
    official_dinov3,
    official_eva02,
    official_pe,
    official_sapiens2,
    randomise,
    rounded_periods,
    sizes,
    tiny_timm,
    worst_error,
)

TOLERANCE = 1e-5  # of the largest feature


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], str]:
    """Write a checkpoint and return its name."""

    def write(checkpoint: Any) -> str:
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.pth'
        torch.save(checkpoint, path)
        return str(path)

    return write


def loaded(name: str, theirs: nn.Module, file: str, **settings: Any) -> nn.Module:
    cls, ours = arguments(name, theirs)
    model = cls(**ours | settings).eval()
    load_pretrained(model, file)
    return model


def test_every_vit_with_rope_of_timm_is_compared() -> None:
    assert sorted(NAMES) == names_of_timm() and len(NAMES) == 60


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow if REPEATS.fullmatch(name) else ()) for name in NAMES]
)
def test_features_are_timms_and_go_back(name: str, saved: Callable) -> None:
    theirs = tiny_timm(name)
    ours = loaded(name, theirs, saved(theirs.state_dict()))
    assert max(worst_error(ours, theirs, size) for size in sizes(theirs)) < TOLERANCE
    state = ours.state_dict()
    again = type(ours)(**arguments(name, theirs)[1]).eval()
    load_pretrained(again, saved(state))  # as it is
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    if 'sapiens2' in name:
        with pytest.raises(WeightsError, match='timm has no layout'):
            to_timm(state, type(ours).__name__, HEADS)
        return
    back = to_timm(state, type(ours).__name__, HEADS)
    twin = tiny_timm(name)
    if name.startswith('vit_mediumd') or name.endswith('dinov3'):
        assert not any('bias' in key and 'attn.q' in key for key in back)
    missing, unexpected = twin.load_state_dict(back, strict=False)
    assert not unexpected and {key.split('.')[0] for key in missing} <= {'norm', 'fc_norm', 'rope'}
    assert worst_error(ours, twin, sizes(theirs)[2]) < TOLERANCE
    third = to_mmrope(back, HEADS).state
    assert all(torch.equal(value, state[key]) for key, value in third.items())


def detector(state: dict[str, Tensor]) -> dict[str, Any]:
    """The file of a detector, with PyTorch's notes where the backbone has them."""
    weights: Any = OrderedDict(
        {f'backbone.{key}': value for key, value in state.items()} | {'neck.weight': torch.ones(1)}
    )
    weights._metadata = {'backbone': getattr(state, '_metadata', {}).get('', {})}
    return {'state_dict': weights}


DINOV3 = ['vit_small_patch16_dinov3_qkvb', 'vit_small_plus_patch16_dinov3_qkvb', 'vit_7b_patch16_dinov3']
SAPIENS2 = 'vit_base_patch16_sapiens2'
OTHERS = {  # models, files in other layouts, and where in a file the weights are
    **{(name, layout): layout for name in DINOV3 for layout in ('v4', 'v5')},
    **{
        (name, 'official'): 'official'
        for name in (
            'eva02_tiny_patch14_224',
            'eva02_base_patch14_448',
            'eva02_base_patch16_clip_224',
            'vit_pe_core_tiny_patch16_384',
            'vit_pe_core_gigantic_patch14_448',
            'vit_pe_spatial_gigantic_patch14_448',
            'vit_pe_lang_large_patch14_448',
            SAPIENS2,
        )
    },
    (SAPIENS2, 'v5'): 'v5',
}


def test_half_precision_is_converted_without_rounding(saved: Callable) -> None:
    """The embedding of the cls token's place is added to it, in float32."""
    theirs = tiny_timm('eva02_tiny_patch14_224')
    half = {key: value.bfloat16() for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(half)
    ours = loaded('eva02_tiny_patch14_224', theirs, saved(half))
    assert worst_error(ours, theirs, sizes(theirs)[2]) < TOLERANCE


def test_a_detector_of_eva02_is_recognised(saved: Callable) -> None:
    theirs = tiny_timm('eva02_base_patch14_448')
    cls, settings = arguments('eva02_base_patch14_448', theirs)
    models = [cls(**settings, with_cls_token=False).eval() for _ in range(2)]
    for model, state in zip(models, (theirs.state_dict(), eva02_detector(theirs.state_dict()))):
        load_pretrained(model, saved(state))
    weights = [model.state_dict() for model in models]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_positions_scale_to_the_grid_of_the_file(saved: Callable) -> None:
    """Sizes of PE differ by nothing else; at another grid, features would be wrong without a word."""
    arch = dict(embed_dims=32, depth=2, num_heads=2)
    file = saved(mmrope.PEViT(arch, img_size=(64, 96)).state_dict())
    with pytest.raises(WeightsError, match=r'scale to a grid of 4 x 6, not 14 x 14 \(set img_size=\(64, 96\)\)'):
        load_pretrained(mmrope.PEViT(arch), file)
    for settings in (dict(rule='reference', ref=(4, 6), offset=1), dict(rule='index', offset=1)):
        state = mmrope.PEViT(arch, img_size=(64, 96), positions=settings).state_dict()
        load_pretrained(mmrope.PEViT(arch, positions=settings), saved(state))


def test_learned_frequencies_do_not_go_to_timm() -> None:
    model = mmrope.EVA02ViT(dict(embed_dims=32, depth=2, num_heads=2), rope='mixed')
    with pytest.raises(WeightsError, match=r'blocks\.0\.attn\.rope\.freqs was learned'):
        to_timm(model.state_dict(), 'EVA02ViT', 2)


def test_frequencies_that_timm_cannot_hold_are_named(saved: Callable) -> None:
    theirs = tiny_timm('vit_small_patch16_dinov3')
    file = saved(official_dinov3(theirs.state_dict()))
    assert 'frequencies, which timm computes in float32 (blocks.*.attn.rope.freqs)' in describe(convert(file, 'timm'))


def in_layout(name: str, layout: str, state: dict[str, Tensor]) -> Any:
    if (name, layout) == (SAPIENS2, 'v5'):
        return hugging_face_sapiens2(state)
    if layout in ('v4', 'v5'):
        return hugging_face_dinov3(state, int(layout[1]))
    if 'eva02' in name:
        found = official_eva02(state)
        return {f'visual.{key}': value for key, value in found.items()} if 'clip' in name else {'module': found}
    return official_pe(state) if '_pe_' in name else {'model': official_sapiens2(state)}


@pytest.mark.parametrize('name, layout', OTHERS)
def test_other_layouts_compute_the_same(name: str, layout: str, saved: Callable) -> None:
    theirs = tiny_timm(name)
    file = saved(in_layout(name, layout, theirs.state_dict()))
    ours = loaded(name, theirs, file)
    assert convert(file).family == type(ours).__name__
    assert worst_error(ours, theirs, sizes(theirs)[2]) < TOLERANCE


@pytest.mark.parametrize('wrap', [lambda state: state, lambda state: {'backbone': state}, detector])
@pytest.mark.parametrize('name', DINOV3)
def test_periods_of_a_file_decide_the_frequencies(name: str, wrap: Callable, saved: Callable) -> None:
    """Those that are published were rounded to bfloat16; in float32 they would be others."""
    theirs = tiny_timm(name)
    head_dim = theirs.embed_dim // HEADS
    file = saved(wrap(official_dinov3(theirs.state_dict(), head_dim)))
    ours = loaded(name, theirs, file)
    size = sizes(theirs)[2]
    assert worst_error(ours, theirs, size) > 100 * TOLERANCE
    theirs.rope.periods.copy_(rounded_periods(head_dim).float())
    assert worst_error(ours, theirs, size) < TOLERANCE
    again = loaded(name, theirs, saved(ours.state_dict()))  # mmrope's files keep them
    assert worst_error(again, theirs, size) < TOLERANCE


def test_a_mask_that_was_never_set_hides_the_bias_of_the_keys(saved: Callable) -> None:
    """It is NaN in a model of DINOv3 that was built and not loaded."""
    theirs = tiny_timm('vit_small_patch16_dinov3_qkvb')
    state = official_dinov3(theirs.state_dict())
    state = {key: value * torch.nan if key.endswith('bias_mask') else value for key, value in state.items()}
    theirs.rope.periods.copy_(rounded_periods(64).float())
    ours = loaded('vit_small_patch16_dinov3_qkvb', theirs, saved(state))
    assert worst_error(ours, theirs, sizes(theirs)[1]) < TOLERANCE


def test_heads_that_queries_share_are_repeated_side_by_side(saved: Callable) -> None:
    """Of four queries the first two have the first key; with fewer heads, no order would show."""
    theirs = timm.create_model(
        SAPIENS2, embed_dim=64, depth=1, num_heads=4, num_kv_heads=2, num_classes=0, dynamic_img_size=True
    ).eval()
    randomise(theirs)
    ours = mmrope.Sapiens2ViT(dict(embed_dims=64, depth=1, num_heads=4)).eval()
    load_pretrained(ours, saved(theirs.state_dict()))
    assert worst_error(ours, theirs, (96, 64)) < TOLERANCE


SAM3 = dict(arch=dict(embed_dims=128, depth=8, num_heads=2, mlp_ratio=4736 / 1024), img_size=56, window_size=4)


def sam3_files(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The weights of a model as the authors of SAM 3 and transformers name them."""
    state = {key: value for key, value in model.state_dict().items() if key != 'patch_embed.proj.bias'}
    official = {key.replace('norm_pre', 'ln_pre'): value for key, value in state.items()}
    official['pos_embed'] = torch.cat((torch.randn(1, 1, 128), state['pos_embed']), dim=1)  # a row for a cls token
    official |= {f'blocks.{i}.attn.freqs_cis': torch.randn(16, 32, dtype=torch.complex64) for i in range(8)}
    names = (
        ('norm_pre', 'layer_norm'),
        ('pos_embed', 'embeddings.position_embeddings'),
        ('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
        ('blocks.', 'layers.'),
        ('.norm', '.layer_norm'),
        ('attn.proj', 'attention.o_proj'),
        ('attn.', 'attention.'),
    )
    hugging_face = {}
    for key, value in state.items():
        for old, new in names:
            key = key.replace(old, new)
        if '.qkv.' in key:
            parts = zip('qkv', value.chunk(3))
            hugging_face |= {key.replace('qkv', f'{part}_proj'): each for part, each in parts}
        else:
            hugging_face[key] = value
    return {
        'detector.backbone.vision_backbone.trunk.': official,
        'backbone.vision_backbone.trunk.': official,
        'vision_encoder.backbone.': hugging_face,
    }


@pytest.mark.parametrize('prefix', range(3))
def test_sam3_loads_from_the_file_of_the_whole_model(prefix: int, saved: Callable) -> None:
    theirs, ours = (mmrope.SAM3ViT(**SAM3).eval() for _ in range(2))
    randomise(theirs)
    theirs.patch_embed.proj.bias.data.zero_()
    name, state = list(sam3_files(theirs).items())[prefix]
    load_pretrained(ours, saved({f'{name}{key}': value for key, value in state.items()} | {'x': torch.ones(1)}))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_sam3_computes_what_its_definition_says() -> None:
    """Tiled embedding, norm before the blocks, windows whose positions count tokens, scaled positions in the others."""
    model = mmrope.SAM3ViT(**SAM3, out_indices=(0, 7)).double().eval()
    randomise(model)
    weights = dict(model.state_dict()) | dict(model.named_buffers())
    x = torch.randn(1, 3, 14 * 9, 14 * 6).double()
    assert model.global_blocks == {1, 3, 5, 7} and model.window_size == 4
    assert [block.attn.rope.positions.frame for block in model.blocks[:2]] == [(4, 4), None]
    with torch.no_grad():
        ours = model(x)
        theirs = plain_vit(model, x, weights, set(model.global_blocks), eps=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


WRONG = {
    'family': (
        'vit_small_patch16_dinov3',
        lambda: mmrope.EVA02ViT('tiny'),
        "these are weights of a DINOv3ViT: set type='mmrope.DINOv3ViT'",
    ),
    'RoPEViT': ('eva02_tiny_patch14_224', lambda: mmrope.RoPEViT('tiny'), "set type='mmrope.EVA02ViT'"),
    'rule of positions': (
        'vit_small_patch16_dinov3',
        lambda: mmrope.DINOv3ViT(dict(embed_dims=128, depth=3, num_heads=2), positions=dict(rule='reference', ref=16)),
        "the rule of positions is 'centred', not 'reference'",
    ),
    'registers': (
        'vit_betwixt_patch16_rope_reg4_gap_256',
        lambda: mmrope.SBBViT(dict(embed_dims=128, depth=3, num_heads=2)),
        'set num_registers=4',
    ),
    'LayerScale': (
        'vit_small_patch16_dinov3',
        lambda: mmrope.DINOv3ViT(dict(embed_dims=128, depth=3, num_heads=2), layer_scale_init_value=None),
        'set layer_scale_init_value=1e-4',
    ),
    'gate': (
        'vit_small_plus_patch16_dinov3',
        lambda: mmrope.DINOv3ViT(dict(embed_dims=128, depth=3, num_heads=2)),
        "set mlp='swiglu'",
    ),
}


@pytest.mark.parametrize('name, model, words', WRONG.values(), ids=WRONG)
def test_what_does_not_fit_says_what_would(name: str, model: Callable, words: str, saved: Callable) -> None:
    with pytest.raises(WeightsError) as error:
        load_pretrained(model(), saved(tiny_timm(name).state_dict()))
    assert words in str(error.value), str(error.value)


def test_the_wrong_size_names_the_right_one() -> None:
    for cls, arch, other in (
        (mmrope.DINOv3ViT, 'small_plus', 'small'),
        (mmrope.EVA02ViT, 'clip_base', 'base'),
        (mmrope.PEViT, 'lang_large', 'spatial_large'),
        (mmrope.SBBViT, 'mediumd', 'medium'),
    ):
        with torch.device('meta'):
            state, model = cls(arch).state_dict(), cls(other)
            with pytest.raises(WeightsError, match=f"set arch='{arch}'"):
                load_converted(model, to_mmrope(state), 'it')


@pytest.mark.parametrize('registers', [0, 4])
def test_dinov2_loads_into_a_vit_without_rope_alone(registers: int, saved: Callable) -> None:
    """timm's with registers has no place for the cls token in its embedding, and the one without has."""
    name = f'vit_small_patch14_{"reg4_" * bool(registers)}dinov2'
    size = dict(embed_dim=64, depth=3, num_heads=2)
    theirs = timm.create_model(name, img_size=70, num_classes=0, dynamic_img_size=True, **size).eval()
    randomise(theirs)
    settings = dict(arch=dict(embed_dims=64, depth=3, num_heads=2), patch_size=14, img_size=70, ape=True)
    settings |= dict(with_cls_token=True, num_registers=registers, out_indices=range(3))
    settings |= dict(pos_embed_resize='bicubic_antialias')
    file = saved(theirs.state_dict())
    ours = mmrope.RoPEViT(**settings, rope=None).eval()
    load_pretrained(ours, file)
    assert max(worst_error(ours, theirs, grid) for grid in ((70, 70), (42, 98))) < TOLERANCE
    with pytest.raises(WeightsError, match='trained without RoPE: set rope=None'):
        load_pretrained(mmrope.RoPEViT(**settings, rope='axial'), file)
    with pytest.raises(WeightsError, match="weights of a RoPEViT: set type='mmrope.RoPEViT'"):
        load_pretrained(mmrope.DINOv3ViT(dict(embed_dims=64, depth=3, num_heads=2)), file)


def test_a_report_says_what_was_done(saved: Callable) -> None:
    theirs = tiny_timm('vit_small_patch16_dinov3_qkvb')
    cls, settings = arguments('vit_small_patch16_dinov3_qkvb', theirs)
    text = str(load_pretrained(cls(**settings), saved(official_dinov3(theirs.state_dict()))))
    assert 'rope_embed.periods -> blocks.*.attn.rope.freqs' in text
    assert 'of pretraining (mask_token, local_cls_norm.weight, local_cls_norm.bias)' in text
    assert 'buffers that are computed (blocks.*.attn.qkv.bias_mask)' in text
    text = str(load_pretrained(cls(**settings), saved(theirs.state_dict())))
    assert 'assumed: num_heads=2, as the model has, frequencies in float32' in text
    assert 'newly initialised: blocks.*.attn.rope.freqs' in text


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize(
    'name', ['eva02_tiny_patch14_224', 'vit_pe_core_tiny_patch16_384', 'vit_small_plus_patch16_dinov3']
)
def test_a_converted_file_is_of_mmrope_and_goes_on_to_timm(name, suffix, saved, tmp_path) -> None:
    theirs = tiny_timm(name)
    cls, settings = arguments(name, theirs)
    source = saved(theirs.state_dict())
    own, timms = str(tmp_path / f'own.{suffix}'), str(tmp_path / f'timm.{suffix}')
    save(convert(source).state, own)
    save(convert(own, 'timm').state, timms)
    for path in (own, timms):
        ours = cls(**settings).eval()
        load_pretrained(ours, path)
        assert worst_error(ours, theirs, sizes(theirs)[2]) < TOLERANCE


OWN = {
    'DINOv3ViT': {},
    'EVA02ViT': {},
    'PEViT': {},
    'SAM3ViT': {},
    'SBBViT': {},
    'Sapiens2ViT': {},
    'RoPEViT': dict(positions=dict(rule='centred')),
}


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('family', OWN)
def test_a_file_of_mmrope_names_its_family(family: str, suffix: str, saved: Callable, tmp_path: Path) -> None:
    """Its names do not show it: those of SAM 3 are those of PE, and a RoPEViT may have any of them."""
    cls = type('Mine', (getattr(mmrope, family),), {})
    model = cls(arch=dict(embed_dims=32, depth=4, num_heads=2), img_size=32, **OWN[family])
    path = str(tmp_path / f'own.{suffix}')
    converted = convert(saved(detector(model.state_dict()) | {'meta': 1}))
    assert converted.family == family and converted.rules == (model.positions.rule,)
    assert not converted.renamed and set(converted.state) == set(model.state_dict())
    save(converted.state, path)
    assert convert(path).family == family
    other = mmrope.SBBViT if family != 'SBBViT' else mmrope.RoPEViT
    with pytest.raises(WeightsError, match=f"these are weights of a {family}: set type='mmrope.{family}'"):
        load_pretrained(other(dict(embed_dims=64, depth=1, num_heads=2)), path)


@pytest.mark.parametrize('token', [None, 'hf_of_another'])  # 401 and 403
def test_a_gate_names_the_same_weights_without_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv('HF_TOKEN', token)
    repository = 'facebook/dinov3-vits16-pretrain-lvd1689m'
    hub.files[repository, 'model.safetensors'] = b''
    hub.gated.add(repository)
    with torch.device('meta'), pytest.raises(SourceError) as error:
        load_pretrained(mmrope.DINOv3ViT('small'), f'hf-hub:{repository}')
    assert f'{repository} is gated: accept its terms' in str(error.value)
    assert 'without a gate timm:vit_small_patch16_dinov3.lvd1689m gives the same weights' in str(error.value)
