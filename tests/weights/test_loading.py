"""Loading says what it did, and what does not fit is an error that says what to change."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.model.weight_init import PretrainedInit
from safetensors.torch import save_file
from torch import Tensor, nn

from mmrope import RoPESwin, RoPEViT
from mmrope.checkpoints.loading import UnsafeCheckpointError
from mmrope.layers import axial_freqs
from mmrope.weights import WeightsError, load_pretrained
from tests.helpers.hub import Hub
from tests.helpers.published import as_file, swin, vit

TINY = dict(arch=dict(embed_dims=64, depth=2, num_heads=2))
TINY_SWIN = dict(arch=dict(embed_dims=32, depths=(1, 2), num_heads=(1, 2)), out_indices=(0, 1))


def tiny_vit(rope: str | None = 'mixed', **kwargs: Any) -> RoPEViT:
    return RoPEViT(**{**TINY, 'rope': rope, **kwargs})


def tiny_swin(rope: str | None = 'mixed', **kwargs: Any) -> RoPESwin:
    return RoPESwin(**{**TINY_SWIN, 'rope': rope, **kwargs})


def upstream_swin_names(model: RoPESwin) -> dict[str, Tensor]:
    """The weights of a model under the names that RoPE-ViT's authors give them; axial frequencies are stored."""
    last = f'norm{len(model.layers) - 1}.'
    state = {key.replace(last, 'norm.') if key.startswith(last) else key: v for key, v in model.state_dict().items()}
    state = {key: value for key, value in (state | dict(model.named_buffers())).items() if not key.startswith('norm0')}
    state = {key.replace('rope.freqs', 'rope_freqs'): value for key, value in state.items()}
    heads = {i: stage.blocks[0].attn.num_heads for i, stage in enumerate(model.layers)}
    for key in [key for key in state if key.endswith('rope_freqs')]:
        state[key] = state[key].expand(-1, heads[int(key.split('.')[1])], -1).clone()
    return state


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], str]:
    """Write a checkpoint and return its name."""

    def save(checkpoint: Any) -> str:
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.pth'
        torch.save(checkpoint, path)
        return str(path)

    return save


def same(ours: nn.Module, theirs: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


def reports(log: pytest.LogCaptureFixture, source: str) -> list[logging.LogRecord]:
    """List the reports about weights from ``source`` that were logged."""
    return [record for record in log.records if re.search(f'{source}.*RoPE', record.getMessage())]


def test_the_report_lists_everything_once(hub: Hub, log: pytest.LogCaptureFixture) -> None:
    hub.files['naver-ai/it', 'pytorch_model.bin'] = as_file(vit('small', 'mixed', ape=True))
    cfg = dict(type='Pretrained', checkpoint='hf-hub:naver-ai/it')
    model = RoPEViT('small', ape=True, img_size=(224, 448), init_cfg=cfg)
    model.init_weights()
    (record,) = reports(log, 'hf-hub:naver-ai/it')
    assert record.levelno == logging.INFO
    expected = [
        r'hf-hub:naver-ai/it.*RoPEViT.*\b183\b.*\b183\b',
        r'renamed\b.* freqs -> blocks\.\*\.attn\.rope\.freqs$',
        r'resized\b.* pos_embed \(1, 196, 384\) -> \(1, 392, 384\)$',
        r'freqs_t_x, freqs_t_y\b.*\bcls_token\b.*\bnorm\.weight, norm\.bias\b.*\bhead\.weight, head\.bias\b',
        r'pos_embed\b.*\b14 x 14\b.*pos_grid',
    ]
    for line, pattern in zip(record.getMessage().splitlines(), expected, strict=True):
        assert re.search(pattern, line)
    log.clear()
    model.init_weights()  # once is enough, as with any module of MMEngine's
    assert not reports(log, 'hf-hub:naver-ai/it')


def test_a_swins_report_lists_new_parameters(saved: Callable, log: pytest.LogCaptureFixture) -> None:
    report = load_pretrained(RoPESwin('tiny'), saved({'model': swin('tiny')}))
    assert report.initial == [f'norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')]
    assert ', '.join(report.initial) in str(report)
    assert 'layers.*.blocks.*.attn.rope_freqs -> layers.*.blocks.*.attn.rope.freqs' in str(report)
    assert 'norm.weight -> norm3.weight' in str(report)
    outputs = load_pretrained(RoPESwin('tiny', out_indices=(1,)), saved({'model': swin('tiny')}))
    assert 'output' in outputs.dropped['norm3.weight']
    assert outputs.initial == ['norm1.weight', 'norm1.bias']


@pytest.mark.parametrize('model', [tiny_vit, tiny_swin], ids=['vit', 'swin'])
@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'state_dict': state, 'meta': {'epoch': 1}, 'optimizer': {'state': {}}},
        lambda state: {'model': state, 'args': {'lr': 1.0}},
        lambda state: {'module': {'model': state}},
        lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
        lambda state: {'ema_state_dict': {'steps': torch.tensor(3), **{f'module.{k}': v for k, v in state.items()}}},
        lambda state: {'model': {k: v + 1 for k, v in state.items()}, 'model_ema': state},
        lambda state: {'state_dict': {k: v + 1 for k, v in state.items()}, 'state_dict_ema': state},
        lambda state: {
            'state_dict': {'neck.weight': torch.ones(1), **{f'backbone.{key}': value for key, value in state.items()}}
        },
        lambda state: {'state_dict': {f'module.backbone.{key}': value for key, value in state.items()}},
    ],
    ids='plain runner model nested ddp ema deit timm detector ddp_detector'.split(),
)
def test_wrapped_weights_are_found(saved: Callable, model: Callable, wrap: Callable) -> None:
    theirs, ours = model(), model()
    report = load_pretrained(ours, saved(wrap(theirs.state_dict())))
    assert same(ours, theirs.state_dict()) and len(report.loaded) == len(ours.state_dict())


def test_an_averaged_model_of_mmengine_gives_the_average(saved: Callable) -> None:
    model = nn.ModuleDict({'backbone': tiny_vit()})
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, ExponentialMovingAverage(model)
    average = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    hook.ema_model.module.load_state_dict(average)
    checkpoint = {'state_dict': dict(model.state_dict())}
    hook.before_save_checkpoint(None, checkpoint)
    ours = tiny_vit()
    load_pretrained(ours, saved(checkpoint))
    assert same(ours, {key.removeprefix('backbone.'): value for key, value in average.items()})


def test_a_part_can_be_named(saved: Callable) -> None:
    theirs, ours = tiny_vit(), tiny_vit()
    name = saved({'state_dict': {f'teacher.body.{key}': value for key, value in theirs.state_dict().items()}})
    load_pretrained(ours, name, prefix='teacher.body')
    assert same(ours, theirs.state_dict())
    with pytest.raises(WeightsError, match=r"prefix='student\.'.*teacher\.body\.\S+.*\(\d+\)"):
        load_pretrained(ours, name, prefix='student')


def test_safetensors_of_a_whole_detector_load(tmp_path: Path) -> None:
    theirs, ours = tiny_vit(), tiny_vit()
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    save_file({**state, 'neck.weight': torch.ones(1)}, tmp_path / 'detector.safetensors')
    report = load_pretrained(ours, str(tmp_path / 'detector.safetensors'))
    assert same(ours, theirs.state_dict()) and list(report.dropped) == ['neck.weight']


@pytest.mark.parametrize('grid, pixels', [((14, 14), 224), ((14, 28), (224, 448)), ((20, 9), (320, 144))])
def test_a_position_embedding_is_resized_without_antialias(
    saved: Callable, grid: tuple[int, int], pixels: int | tuple[int, int]
) -> None:
    weights = tiny_vit(ape=True).state_dict()
    ours = tiny_vit(ape=True, img_size=pixels)
    report = load_pretrained(ours, saved(weights))
    square = weights['pos_embed'].view(1, 14, 14, 64).permute(0, 3, 1, 2)
    expected = square if grid == (14, 14) else F.interpolate(square, grid, mode='bicubic')
    assert torch.equal(ours.pos_embed, expected.flatten(2).transpose(1, 2))
    assert report.resized == ({} if grid == (14, 14) else {'pos_embed': ((1, 196, 64), (1, grid[0] * grid[1], 64))})


def test_a_bias_table_is_resized(saved: Callable) -> None:
    name = 'layers.0.blocks.0.attn.rpb.relative_position_bias_table'
    weights = tiny_swin(rpb=True).state_dict()
    report = load_pretrained(tiny_swin(rpb=True, window_size=12), saved(weights))
    assert report.resized[name] == ((169, 1), (529, 1)) and len(report.resized) == 3


# The arguments that the error advises, and keys that it lists, by their list in the report.
WRONG = {
    'size': (
        lambda: vit('small'),
        lambda: RoPEViT('tiny'),
        ["arch='small'"],
        dict(misfits='patch_embed.proj.weight'),
    ),
    'depth': (
        lambda: vit('small', depth=6),
        lambda: RoPEViT('small'),
        ["arch={'embed_dims': 384, 'depth': 6}"],
        dict(missing='blocks.6.gamma_1'),
    ),
    'size of a swin': (
        lambda: swin('tiny'),
        lambda: RoPESwin('small'),
        ["arch='tiny'"],
        dict(missing='layers.2.blocks.6.norm1.weight'),
    ),
    'axial into mixed': (
        lambda: vit('small', 'axial'),
        lambda: RoPEViT('small'),
        ["rope='axial'"],
        dict(missing='blocks.0.attn.rope.freqs'),
    ),
    'mixed into axial': (
        lambda: vit('small'),
        lambda: RoPEViT('small', rope='axial'),
        ["rope='mixed'", '(12)'],
        dict(left_over='blocks.0.attn.rope.freqs'),
    ),
    'all at once': (
        lambda: vit('small', 'axial', ape=True),
        lambda: RoPEViT('tiny', with_cls_token=True, final_norm=True, layer_scale_init_value=None),
        ["arch='small'", "rope='axial'", 'rope=None', 'ape=True', 'layer_scale_init_value=1e-4'],
        {},
    ),
    'no cls token and no norm': (
        lambda: tiny_vit().state_dict(),
        lambda: tiny_vit(with_cls_token=True, final_norm=True),
        ['with_cls_token=False', 'final_norm=False', 'norm.weight', '(3)'],
        dict(missing='cls_token'),
    ),
    'mixed into none': (
        lambda: vit('small'),
        lambda: RoPEViT('small', rope=None),
        ["rope='mixed'"],
        dict(left_over='blocks.0.attn.rope.freqs'),
    ),
    'axial swin into mixed': (
        lambda: swin('tiny', 'axial'),
        RoPESwin,
        ["rope='axial'"],
        dict(missing='layers.0.blocks.0.attn.rope.freqs'),
    ),
    'mixed swin into axial': (
        lambda: swin('tiny'),
        lambda: RoPESwin(rope='axial'),
        ["rope='mixed'"],
        dict(left_over='layers.0.blocks.0.attn.rope.freqs'),
    ),
    'axial swin, another theta': (
        lambda: swin('tiny', 'axial'),
        lambda: RoPESwin(rope='axial', rope_theta=100),
        ['rope_theta=50'],
        dict(left_over='layers.0.blocks.0.attn.rope.freqs'),
    ),
    'swin into vit': (lambda: swin('tiny'), lambda: RoPEViT('small'), ["type='mmrope.RoPESwin'", "arch='tiny'"], {}),
    'vit into swin': (lambda: vit('small'), lambda: RoPESwin(), ["type='mmrope.RoPEViT'", "arch='small'"], {}),
    'APE left over': (
        lambda: vit('small', ape=True),
        lambda: RoPEViT('small'),
        ['ape=True'],
        dict(left_over='pos_embed'),
    ),
    'APE missing': (
        lambda: vit('small'),
        lambda: RoPEViT('small', ape=True),
        ['ape=False'],
        dict(missing='pos_embed'),
    ),
    'bias missing': (
        lambda: swin('tiny'),
        lambda: RoPESwin(rpb=True),
        ['rpb=False', "allow_missing=['relative_position_bias_table']"],
        dict(missing='layers.0.blocks.0.attn.rpb.relative_position_bias_table'),
    ),
    'bias left over': (
        lambda: swin('tiny', None, True),
        lambda: RoPESwin('tiny', rope=None),
        ['rpb=True'],
        dict(left_over='layers.0.blocks.0.attn.rpb.relative_position_bias_table'),
    ),
    'LayerScale left over': (
        lambda: vit('small'),
        lambda: RoPEViT('small', layer_scale_init_value=None),
        ['layer_scale_init_value=1e-4'],
        dict(left_over='blocks.0.gamma_1'),
    ),
    'LayerScale missing': (
        lambda: {key: value for key, value in vit('small').items() if 'gamma' not in key},
        lambda: RoPEViT('small'),
        ['layer_scale_init_value=None'],
        dict(missing='blocks.0.gamma_1'),
    ),
    'patch': (
        lambda: vit('small'),
        lambda: RoPEViT('small', patch_size=8),
        ['patch_size=16'],
        dict(misfits='patch_embed.proj.weight'),
    ),
    'channels': (
        lambda: vit('small'),
        lambda: RoPEViT('small', in_channels=4),
        ['in_channels=3'],
        dict(misfits='patch_embed.proj.weight'),
    ),
    'unknown key': (
        lambda: {**vit('small'), 'mask_token': torch.ones(1)},
        lambda: RoPEViT('small'),
        [],
        dict(left_over='mask_token'),
    ),
    'a block half there': (
        lambda: {key: value for key, value in vit('small').items() if key != 'blocks.3.mlp.fc2.bias'},
        lambda: RoPEViT('small'),
        [],
        dict(missing='blocks.3.mlp.fc2.bias'),
    ),
}


@pytest.mark.parametrize('weights, model, words, keys', WRONG.values(), ids=WRONG)
def test_weights_that_do_not_fit_are_refused_with_advice(
    saved: Callable,
    log: pytest.LogCaptureFixture,
    weights: Callable,
    model: Callable,
    words: list[str],
    keys: dict[str, str],
) -> None:
    state, ours = weights(), model()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    name = saved({'model': state})
    with pytest.raises(WeightsError, match=f'{name}.*{type(ours).__name__}') as error:
        load_pretrained(ours, name)
    text = str(error.value)
    assert all(word in text for word in [*words, *keys.values()]), text
    advised = {word.partition('=')[0] for word in words if '=' in word}
    assert set(re.findall(r'(\w+)=', text)) == advised | {'strict'}, text
    assert len(text) < 600 and '\n' not in text
    assert same(ours, before)
    log.clear()
    report = load_pretrained(ours, name, strict=False)
    assert all(key in getattr(report, kind) for kind, key in keys.items())
    (record,) = reports(log, name)
    assert record.levelno == logging.WARNING


def test_a_bias_table_may_start_anew_beside_published_frequencies(saved: Callable) -> None:
    """The configs with rpb=True rely on it."""
    model = RoPESwin('tiny', rpb=True)
    report = load_pretrained(model, saved({'model': swin('tiny')}), allow_missing=['relative_position_bias_table'])
    assert len([key for key in report.initial if 'rpb' in key]) == 12 and not report.problems


@pytest.mark.parametrize('rope', ['mixed', 'axial'])
def test_stored_axial_frequencies_are_compared_and_mixed_ones_loaded(saved: Callable, rope: str) -> None:
    theirs, ours = tiny_swin(rope), tiny_swin(rope)
    report = load_pretrained(ours, saved(upstream_swin_names(theirs)))
    reasons = [report.dropped.get(f'layers.1.blocks.{j}.attn.rope.freqs', '') for j in range(2)]
    assert all('axial' in reason for reason in reasons) if rope == 'axial' else reasons == ['', '']
    if rope == 'axial':
        state = upstream_swin_names(theirs)
        state['layers.1.blocks.1.attn.rope_freqs'] = axial_freqs(32, 20.0).expand(-1, 2, -1).clone()
        with pytest.raises(WeightsError, match=r'layers\.1\.blocks\.1\.attn\.rope\.freqs'):
            load_pretrained(ours, saved(state))


class Cautious(RoPEViT):
    """A family that can do without some weights, in both directions."""

    def weights_may_miss(self, key: str) -> bool:
        return key == 'cls_token'

    def weights_unused(self, key: str) -> str | None:
        return 'of a decoder' if key == 'mask_token' else super().weights_unused(key)


def test_a_backbone_says_which_weights_it_can_do_without(saved: Callable) -> None:
    name = saved({**tiny_vit().state_dict(), 'mask_token': torch.ones(1)})
    report = load_pretrained(Cautious(**TINY, with_cls_token=True), name)
    assert report.initial == ['cls_token'] and report.dropped == {'mask_token': 'of a decoder'}
    with pytest.raises(WeightsError, match=r'\bcls_token\b.*\bmask_token\b'):
        load_pretrained(tiny_vit(with_cls_token=True), name)


def test_a_config_can_load_without_strict(saved: Callable, log: pytest.LogCaptureFixture) -> None:
    cfg = dict(type='Pretrained', checkpoint=saved(tiny_vit(ape=True).state_dict()), strict=False)
    tiny_vit(init_cfg=cfg).init_weights()
    (record,) = reports(log, cfg['checkpoint'])
    assert record.levelno == logging.WARNING and re.search(r'\bpos_embed\b', record.getMessage().splitlines()[-1])


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit])
def test_other_initialisers_go_first(saved: Callable, kind: str | type) -> None:
    theirs = tiny_vit(with_cls_token=True)
    pretrained = dict(type=kind, checkpoint=saved(theirs.state_dict()), map_location='cpu')
    ours = tiny_vit(with_cls_token=True, init_cfg=[pretrained, dict(type='Constant', layer='Linear', val=7.0)])
    given = ours.init_cfg
    ours.init_weights()
    assert same(ours, theirs.state_dict()) and ours.init_cfg is given
    other = tiny_vit(init_cfg=dict(type='Constant', layer='Linear', val=7.0))
    other.init_weights()
    assert other.blocks[0].mlp.fc1.weight.eq(7).all()


def test_frozen_stages_stay_frozen(saved: Callable) -> None:
    name = saved(tiny_vit().state_dict())
    ours = tiny_vit(frozen_stages=1, init_cfg=dict(type='Pretrained', checkpoint=name))
    ours.init_weights()
    learning = {key.split('.')[1] for key, param in ours.named_parameters() if param.requires_grad}
    assert learning == {'1'}


def test_loading_changes_the_output_of_an_eval_model(saved: Callable) -> None:
    """Tables of rotations are kept between calls, and dropped when frequencies change."""
    theirs, ours = tiny_vit().eval(), tiny_vit().eval()
    x = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        ours(x)
        load_pretrained(ours, saved(theirs.state_dict()))
        assert torch.equal(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize('checkpoint', [{'epoch': 3}, [], {'model': {}}, 3])
def test_a_checkpoint_without_weights_is_named(saved: Callable, checkpoint: Any) -> None:
    name = saved(checkpoint)
    with pytest.raises(WeightsError, match=f'{name}.*weights.*state_dict'):
        load_pretrained(tiny_vit(), name)


class Malicious:
    """Makes a folder when it is unpickled by Python's own pickle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_pretrained_weights_with_code_are_refused_without_the_tools_too(
    saved: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain Python, where nobody has set PyTorch's switch, or somebody has set it the other way."""
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    folder = tmp_path / 'was_here'
    name = saved({'model': tiny_vit().state_dict(), 'extra': Malicious(folder)})
    for strict in (True, False):
        model = tiny_vit(init_cfg=dict(type='Pretrained', checkpoint=name, strict=strict))
        with pytest.raises(UnsafeCheckpointError, match=f'{name}.*mkdir'):
            model.init_weights()
    assert not folder.exists()
    torch.load(name, weights_only=False)
    assert folder.exists()  # it would have
