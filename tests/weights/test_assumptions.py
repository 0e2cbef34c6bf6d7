"""What weights do not show is known, or stated, or an error; nothing is taken for something else in silence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import get_state_dict, weights_to_cpu
from safetensors.torch import save_file
from torch import Tensor, nn

from mmrope import RoPESwin, RoPEViT
from mmrope.checkpoints.loading import load_checkpoint
from mmrope.models.swin import ARCHS as SWINS
from mmrope.weights import WeightsError, load_pretrained, to_mmrope
from mmrope.weights.converting import convert, describe, save
from tests.helpers.published import swin, vit

ARCH = dict(embed_dims=64, depth=2, num_heads=2)


def tiny(grid: tuple[int, int] = (2, 2), rope: str | None = 'mixed', **kwargs: Any) -> RoPEViT:
    return RoPEViT(**{**dict(arch=ARCH, rope=rope, ape=True, img_size=tuple(16 * side for side in grid)), **kwargs})


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], str]:
    """Write a checkpoint and return its name."""

    def write(checkpoint: Any) -> str:
        torch.save(checkpoint, tmp_path / 'it.pth')
        return str(tmp_path / 'it.pth')

    return write


def resized(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    maps = pos_embed.unflatten(1, old).permute(0, 3, 1, 2)
    return F.interpolate(maps, new, mode='bicubic').flatten(2).transpose(1, 2)


def as_runner(model: RoPEViT) -> dict[str, Any]:
    """A whole model's checkpoint, as MMEngine's runner writes it."""
    return {'state_dict': weights_to_cpu(get_state_dict(nn.ModuleDict({'backbone': model, 'neck': nn.Linear(1, 1)})))}


WAYS = {
    'a state dict': lambda model: model.state_dict(),
    'a runner': as_runner,
    'a compiled one': lambda model: {'model': torch.compile(model).state_dict()},
}


@pytest.mark.parametrize('write', WAYS.values(), ids=WAYS)
@pytest.mark.parametrize('grid', [(4, 4), (3, 3), (2, 8), (5, 1)])
def test_the_grid_of_mmropes_own_embedding_is_known(
    saved: Callable, write: Callable[[RoPEViT], Any], grid: tuple[int, int]
) -> None:
    """Also where the number of its places is a square, and that of the model's."""
    theirs, ours = tiny((2, 8)), tiny(grid)
    report = load_pretrained(ours, saved(write(theirs)))
    torch.testing.assert_close(ours.pos_embed, resized(theirs.pos_embed, (2, 8), grid), rtol=0, atol=1e-6)
    assert not report.assumed
    assert ('pos_embed' in report.resized) == (grid != (2, 8))
    assert grid != (4, 4) or 'pos_embed (2, 8) -> (4, 4)' in str(report)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('layout', ['mmrope', 'timm'])
def test_a_converted_file_says_the_grid_too(saved: Callable, tmp_path: Path, suffix: str, layout: str) -> None:
    theirs, ours = tiny((2, 8)), tiny((4, 4))
    path = str(tmp_path / f'converted.{suffix}')
    save(convert(saved(as_runner(theirs)), layout).state, path)
    assert not load_pretrained(ours, path).assumed
    torch.testing.assert_close(ours.pos_embed, resized(theirs.pos_embed, (2, 8), (4, 4)), rtol=0, atol=1e-6)


@pytest.mark.parametrize('grid', [(4, 4), (3, 5)])
def test_the_grid_is_known_without_mmropes_loader(saved: Callable, grid: tuple[int, int]) -> None:
    """``load_from`` and ``tools/test.py`` load in this way."""
    theirs, ours = tiny((2, 8)), tiny(grid)
    nn.ModuleDict({'backbone': ours, 'neck': nn.Linear(1, 1)}).load_state_dict(
        load_checkpoint(saved(as_runner(theirs)))['state_dict']
    )
    torch.testing.assert_close(ours.pos_embed, resized(theirs.pos_embed, (2, 8), grid), rtol=0, atol=1e-6)


FOREIGN = {  # the grid of weights that do not say it, the model's, what is taken, what is said
    'square, the same': ((4, 4), (4, 4), (4, 4), ''),
    'square, another': ((4, 4), (3, 5), (4, 4), '4 x 4'),
    'as many as the model has': ((2, 8), (2, 8), (2, 8), '2 x 8'),
    'not square, the same': ((3, 5), (3, 5), (3, 5), '3 x 5'),
}


@pytest.mark.parametrize('theirs, ours, taken, said', FOREIGN.values(), ids=FOREIGN)
def test_a_grid_that_nothing_says_is_assumed_and_stated(
    saved: Callable, theirs: tuple[int, int], ours: tuple[int, int], taken: tuple[int, int], said: str
) -> None:
    state, model = dict(tiny(theirs).state_dict()), tiny(ours)
    report = load_pretrained(model, saved(state))
    torch.testing.assert_close(model.pos_embed, resized(state['pos_embed'], taken, ours), rtol=0, atol=1e-6)
    assert [assumption for assumption in report.assumed if said in assumption] == report.assumed
    assert bool(report.assumed) == bool(said) and said in str(report)


def test_a_grid_that_cannot_be_is_refused_with_advice(saved: Callable) -> None:
    name, model = saved(dict(tiny((3, 5)).state_dict())), tiny((4, 4))
    before = model.pos_embed.clone()
    with pytest.raises(WeightsError, match=r'(?=.*\b15\b)(?=.*pos_embed)(?=.*img_size).*pos_grid'):
        load_pretrained(model, name)
    assert torch.equal(model.pos_embed, before)


def test_a_place_for_a_cls_token_is_refused_without_advice_on_the_grid(saved: Callable) -> None:
    state = {**tiny((4, 4)).state_dict(), 'pos_embed': torch.ones(1, 17, 64)}
    with pytest.raises(WeightsError, match=r'pos_embed.*\(1, 17, 64\).*\(1, 16, 64\)') as error:
        load_pretrained(tiny((4, 4)), saved(state))
    assert 'img_size' not in str(error.value)


@pytest.mark.parametrize('named', [(2, 8), [8, 2]])
@pytest.mark.parametrize('grid', [(4, 4), (2, 8), (3, 5)])
def test_a_user_can_name_the_grid(saved: Callable, named: Any, grid: tuple[int, int]) -> None:
    state = dict(tiny((2, 8)).state_dict())
    cfg = dict(type='Pretrained', checkpoint=saved(state), pos_grid=named)
    model = tiny(grid, init_cfg=cfg)
    model.init_weights()
    torch.testing.assert_close(model.pos_embed, resized(state['pos_embed'], tuple(named), grid), rtol=0, atol=1e-6)


@pytest.mark.parametrize('grid', [(3, 5), (16,), (1, 4, 4)])
def test_a_named_grid_of_other_places_is_an_error(saved: Callable, grid: tuple[int, ...]) -> None:
    name = saved(dict(tiny((4, 4)).state_dict()))
    with pytest.raises(WeightsError, match=rf'pos_grid .*\b16\b.*{re.escape(str(grid))}'):
        load_pretrained(tiny((4, 4)), name, pos_grid=grid)
    with pytest.raises(WeightsError, match=r'pos_grid .*\b0\b.*\(4, 4\)'):
        load_pretrained(tiny(ape=False), saved(tiny(ape=False).state_dict()), pos_grid=(4, 4))


def test_a_bias_table_of_windows_that_are_not_square_is_refused() -> None:
    """5 x 13 tokens have as many offsets as 8 x 8: 225."""
    state = {**swin('tiny', None, rpb=True)}
    table, index = (f'layers.0.blocks.0.attn.relative_position_{kind}' for kind in ('bias_table', 'index'))
    to_mmrope(state)
    with pytest.raises(WeightsError, match=rf'{index}.*\b65\b'):
        to_mmrope({**state, table: torch.ones(225, 3), index: torch.ones(65, 65, dtype=torch.long)})
    with pytest.raises(WeightsError, match=rf'{index}.*\b98\b'):
        to_mmrope({**state, table: torch.ones(351, 3), index: torch.ones(98, 98, dtype=torch.long)})


TWELVE_HEADS = dict(embed_dims=384, depth=1, num_heads=12)


def test_published_frequencies_are_not_regrouped(saved: Callable) -> None:
    name = saved({'model': vit('small', depth=1)})
    with pytest.raises(WeightsError, match=r'num_heads=6\b.*freqs.*\(2, 6, 32\).*\(2, 12, 16\)'):
        load_pretrained(RoPEViT(TWELVE_HEADS), name)
    load_pretrained(RoPEViT({**TWELVE_HEADS, 'num_heads': 6}), name)


@pytest.mark.parametrize('rope', ['axial', None])
def test_heads_that_nothing_shows_are_those_of_the_published_vits(saved: Callable, rope: str | None) -> None:
    name = saved({'model': vit('small', rope, ape=True, depth=1)})
    model = RoPEViT(TWELVE_HEADS, rope=rope, ape=True)
    with pytest.raises(WeightsError, match=r'num_heads.*\b6\b.*\b12\b'):
        load_pretrained(model, name)
    report = load_pretrained(model, name, strict=False)
    assert re.search(r'num_heads.*\b6\b.*\b12\b', str(report))
    assert not load_pretrained(RoPEViT({**TWELVE_HEADS, 'num_heads': 6}, rope=rope, ape=True), name).assumed


def test_heads_of_mmropes_own_vits_are_known(saved: Callable) -> None:
    theirs = RoPEViT(TWELVE_HEADS, rope='axial')
    report = load_pretrained(RoPEViT(TWELVE_HEADS, rope='axial'), saved(theirs.state_dict()))
    assert not report.assumed
    with pytest.raises(WeightsError, match=r'num_heads.*\b2\b.*\b4\b'):
        load_pretrained(tiny(rope='axial', arch={**ARCH, 'num_heads': 4}), saved(tiny(rope='axial').state_dict()))


def test_heads_of_a_swin_are_compared_too(saved: Callable) -> None:
    """Its axial frequencies are stored by its authors and not by mmrope, and no name shows its heads."""
    arch = dict(embed_dims=96, depths=(1, 1), num_heads=(3, 6))
    theirs = RoPESwin(arch, rope='axial', out_indices=(0, 1))
    other = RoPESwin({**arch, 'num_heads': (6, 12)}, rope='axial', out_indices=(0, 1))
    with pytest.raises(WeightsError, match=r'num_heads.*\(3, 6\).*\(6, 12\)'):
        load_pretrained(other, saved(theirs.state_dict()))
    report = load_pretrained(other, saved(dict(theirs.state_dict())))
    (assumption,) = report.assumed
    assert 'num_heads=(6, 12)' in assumption
    whole = RoPESwin('tiny', rope='axial').state_dict()
    with pytest.raises(WeightsError, match=r'num_heads.*\(3, 6, 12, 24\).*\(6, 12, 24, 48\)'):
        load_pretrained(RoPESwin({**SWINS['tiny'], 'num_heads': (6, 12, 24, 48)}, rope='axial'), saved(dict(whole)))


def test_heads_of_another_width_are_assumed_and_stated(saved: Callable) -> None:
    axial = load_pretrained(tiny(rope='axial'), saved(dict(tiny(rope='axial').state_dict())))
    (assumption,) = axial.assumed
    assert re.search(r'num_heads=2\b', assumption)
    state = dict(tiny(ape=False).state_dict())
    stacked = [state.pop(f'blocks.{i}.attn.rope.freqs') for i in range(2)]
    ours = tiny(ape=False)
    mixed = load_pretrained(ours, saved({**state, 'freqs': torch.stack(stacked, dim=1).flatten(2)}))
    (assumption,) = mixed.assumed
    assert re.search(r'num_heads=2\b.*freqs', assumption)
    assert torch.equal(ours.blocks[1].attn.rope.freqs, stacked[1])


def test_another_base_than_the_published_is_stated(saved: Callable) -> None:
    name = saved({'model': vit('small', 'axial', depth=1)})
    model = dict(arch=dict(embed_dims=384, depth=1, num_heads=6), rope='axial')
    assert not load_pretrained(RoPEViT(**model), name).assumed
    report = load_pretrained(RoPEViT(**model, rope_theta=50.0), name)
    assert re.search(r'rope_theta=50\b.*\b100\b', str(report))
    swin_state = {key: value for key, value in swin('tiny', 'axial').items() if 'rope_freqs' not in key}
    report = load_pretrained(RoPESwin(rope='axial', rope_theta=100.0), saved(swin_state))
    assert re.search(r'rope_theta=100\b.*\b50\b', str(report))


def test_a_conversion_states_its_assumptions(saved: Callable, tmp_path: Path) -> None:
    state = dict(tiny(ape=False).state_dict())
    stacked = torch.stack([state.pop(f'blocks.{i}.attn.rope.freqs') for i in range(2)], dim=1)
    text = describe(convert(saved({'state_dict': {}, 'model': {**state, 'freqs': stacked.flatten(2)}})))
    assert re.search(r'num_heads=1\b.*freqs', text)
    both = {'model': state, 'ema': {key: value + 1 for key, value in state.items()}}
    assert re.search(r'\bema\W.*\bmodel\b', describe(convert(saved(both))))


def test_safetensors_of_others_say_no_grid(tmp_path: Path) -> None:
    save_file(dict(tiny((4, 4)).state_dict()), tmp_path / 'it.safetensors', metadata={'format': 'pt'})
    report = load_pretrained(tiny((3, 5)), str(tmp_path / 'it.safetensors'))
    assert '4 x 4' in str(report)
