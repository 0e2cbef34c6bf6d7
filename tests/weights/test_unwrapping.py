"""Where in a checkpoint a backbone's weights are, among averages, wrappers and other models."""

import re
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from mmrope import RoPESwin, RoPEViT
from mmrope.engine.complete_checkpoint_hook import CompleteCheckpoint
from mmrope.weights import WeightsError, to_mmrope
from mmrope.weights.unwrapping import unwrap

State = dict[str, Tensor]
VIT = RoPEViT(dict(embed_dims=64, depth=2, num_heads=2)).state_dict()
SWIN = RoPESwin(dict(embed_dims=32, depths=(1, 2), num_heads=(1, 2)), out_indices=(0, 1)).state_dict()
OTHER = {key: value + 1 for key, value in VIT.items()}


def named(prefix: str, state: State = VIT) -> State:
    return {f'{prefix}{key}': value for key, value in state.items()}


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


PART = dict(list(VIT.items())[:3])
SEVERAL = {
    'an average that is empty': ({'model': VIT, 'ema': {}}, ''),
    'an average without weights': ({'model': VIT, 'ema': {'decay': 0.99}}, ''),
    'an average with a list': ({'model': VIT, 'ema': {'shadow_params': [torch.ones(1)]}}, ''),
    'an average of a part': (
        {'state_dict': VIT, 'model_ema': PART},
        r'state_dict\W.*\bmodel_ema\W.*\b3\b.*\b32\b.*',
    ),
    'a scalar beside it': ({'model': VIT, 'ema': {'updates': torch.tensor(3)}}, ''),
    'an average': ({'state_dict': OTHER, 'model_ema': VIT}, r'model_ema\W.*\bstate_dict'),
    'an average below its decay': ({'model': OTHER, 'ema': {'decay': 0.9, 'module': VIT}}, r'ema\.module\W.*\bmodel'),
    'an average of a wrapper': ({'model': OTHER, 'ema': named('module._orig_mod.')}, r'ema\W.*\bmodel'),
    'an average without buffers': (
        {'model': {**OTHER, 'layers.0.attn_mask': torch.ones(1), 'head.bias': torch.ones(1)}, 'ema': VIT},
        r'ema\W.*\bmodel',
    ),
    'MMEngine': ({'state_dict': VIT, 'ema_state_dict': named('module.', OTHER)}, r'state_dict\W.*\bema_state_dict'),
    'weights and a step': ({'model': VIT, 'step': torch.tensor(3)}, ''),
}


@pytest.mark.parametrize('checkpoint, taken', SEVERAL.values(), ids=SEVERAL)
def test_the_first_whole_average_is_taken_and_said(checkpoint: dict[str, Any], taken: str) -> None:
    found = unwrap(checkpoint)
    assert same(found.state, VIT) and re.fullmatch(taken, found.taken)


@pytest.mark.parametrize('checkpoint', [{'ema': {}}, {'model': {}, 'ema': {'decay': 0.9}}, {3: torch.ones(1)}])
def test_a_checkpoint_without_weights_is_named(checkpoint: Any) -> None:
    with pytest.raises(WeightsError, match='weights.*state_dict'):
        unwrap(checkpoint)


WRAPPED = [
    '_orig_mod.',
    'module._orig_mod.backbone.',
    '_orig_mod.module.backbone.',
    'backbone._orig_mod.',
    'module.module.',
    'module.backbone.module._orig_mod.',
    '_fsdp_wrapped_module.backbone._fsdp_wrapped_module.',
    '_forward_module._orig_mod.',
]


@pytest.mark.parametrize('prefix', WRAPPED)
@pytest.mark.parametrize('state', [VIT, SWIN], ids=['vit', 'swin'])
def test_names_of_wrappers_come_off(state: State, prefix: str) -> None:
    within = {f'{prefix}{key}'.replace('.attn.', '.attn._orig_mod.'): value for key, value in state.items()}
    assert same(unwrap({'state_dict': within}).state, state)


@pytest.mark.parametrize('prefix', ['backbone.', 'module.backbone._orig_mod.'])
def test_other_parts_of_the_model_are_left_and_named(prefix: str) -> None:
    found = unwrap({**named(prefix), prefix.replace('backbone.', 'neck.') + 'weight': torch.ones(1)})
    assert same(found.state, VIT) and found.others == ['neck.weight']


def test_wrappers_as_pytorch_writes_them() -> None:
    model = nn.ModuleDict({'backbone': RoPEViT(dict(embed_dims=64, depth=2, num_heads=2))})
    model['backbone'].blocks[0] = checkpoint_wrapper(model['backbone'].blocks[0])
    model['backbone'].blocks[1] = torch.compile(model['backbone'].blocks[1])
    compiled = torch.compile(model)
    assert any(key.startswith('_orig_mod.') for key in compiled.state_dict())
    assert unwrap(compiled.state_dict()).state.keys() == VIT.keys()


@pytest.mark.parametrize('given', ['net', 'net.', '_orig_mod.net'])
@pytest.mark.parametrize('written', ['net.', 'module.net.', '_orig_mod.net.', 'net._orig_mod.', 'net.module.'])
def test_a_prefix_may_name_wrappers_or_not(given: str, written: str) -> None:
    assert same(unwrap(named(written), given).state, VIT)
    assert same(unwrap(named(f'module.{written}'), f'module.{given}').state, VIT)
    assert same(unwrap(named('modules.net.'), 'modules.net').state, VIT)


USERS = {
    'of Lightning': (named('model.'), ["prefix='model'"]),
    'below another': (named('module.teacher.body.'), ["prefix='teacher.body'"]),
    "within a detector's": (named('backbone.vit.'), ["prefix='backbone.vit'"]),
    'of two': (
        {**named('student.backbone.', SWIN), **named('_orig_mod.teacher.backbone.', SWIN)},
        ["prefix='student.backbone'", "prefix='teacher.backbone'"],
    ),
}


@pytest.mark.parametrize('state, advice', USERS.values(), ids=USERS)
def test_other_prefixes_are_found_and_advised(state: State, advice: list[str]) -> None:
    with pytest.raises(WeightsError, match='ViT.*Swin') as error:
        to_mmrope(unwrap({'state_dict': state}).state)
    assert all(word in str(error.value) for word in advice) and len(str(error.value)) < 400
    prefix = advice[0].split("'")[1]
    assert to_mmrope(unwrap({'state_dict': state}, prefix).state).family in ('RoPEViT', 'RoPESwin')


def test_weights_without_a_backbone_get_no_advice_about_a_prefix() -> None:
    with pytest.raises(WeightsError) as error:
        to_mmrope(unwrap({'backbone.conv1.weight': torch.ones(1)}).state)
    assert 'prefix' not in str(error.value) and 'backbone.conv1.weight' in str(error.value)


class Detector(nn.Module):
    def __init__(self, grid: tuple[int, int] = (2, 2)) -> None:
        super().__init__()
        size = tuple(16 * side for side in grid)
        self.backbone = RoPEViT(dict(embed_dims=64, depth=2, num_heads=2), ape=True, img_size=size)
        self.neck = nn.Linear(1, 1)


@pytest.mark.parametrize('how', ['in place', 'the backbone', 'the whole'])
@pytest.mark.parametrize('key', ['state_dict', None])
def test_a_test_takes_checkpoints_of_compiled_models(how: str, key: str | None) -> None:
    """In place is what ``CompileBackboneHook`` does: its names are the model's."""
    theirs, ours = Detector(), Detector()
    if how == 'in place':
        theirs.backbone.compile(backend='eager')
    elif how == 'the backbone':
        theirs.backbone = torch.compile(theirs.backbone, backend='eager')
    saved = (torch.compile(theirs, backend='eager') if how == 'the whole' else theirs).state_dict()
    checkpoint = OrderedDict(saved) if key is None else {key: saved}
    complete = CompleteCheckpoint('it.pth')
    complete.note(ours, checkpoint)
    ours.load_state_dict(checkpoint if key is None else checkpoint[key])
    complete.check(ours)
    assert same(ours.state_dict(), {key.replace('_orig_mod.', ''): value for key, value in theirs.state_dict().items()})


def test_a_model_that_is_wrapped_itself_keeps_its_names() -> None:
    model = nn.ModuleDict({'backbone': torch.compile(Detector(), backend='eager')})
    checkpoint = {'state_dict': model.state_dict()}
    names = list(checkpoint['state_dict'])
    CompleteCheckpoint('it.pth').note(model, checkpoint)
    assert list(checkpoint['state_dict']) == names and '_orig_mod' in names[0]


def test_the_grid_of_a_compiled_models_embedding_is_known() -> None:
    theirs, ours = torch.compile(Detector((2, 8)), backend='eager'), Detector((4, 4))
    checkpoint = {'state_dict': theirs.state_dict()}
    CompleteCheckpoint('it.pth').note(ours, checkpoint)
    ours.load_state_dict(checkpoint['state_dict'])
    assert not torch.equal(ours.backbone.pos_embed, theirs.backbone.pos_embed)
