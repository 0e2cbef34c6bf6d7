"""Frequencies against their initial ones, and reconstructions against sums of cosines written out."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmrope import RoPESwin, RoPEViT
from mmrope.analysis.frequencies import (
    changes,
    error,
    frequencies_of,
    reconstruct,
    reconstruction_errors,
    reconstruction_sets,
    target_functions,
)
from mmrope.layers import axial_freqs, mixed_freqs

TINY = dict(arch=dict(embed_dims=32, depth=3, num_heads=2))
TINY_SWIN = dict(arch=dict(embed_dims=16, depths=(1, 2), num_heads=(2, 4)), out_indices=(0, 1))


def test_frequencies_are_found_by_block() -> None:
    vit, swin = RoPEViT(**TINY), RoPESwin(**TINY_SWIN)
    found = frequencies_of(vit)
    assert {name: tuple(part.shape) for name, part in found.blocks.items()} == {
        f'blocks.{i}': (2, 2, 8) for i in range(3)
    }
    assert list(frequencies_of(swin).blocks) == ['layers.0.blocks.0', 'layers.1.blocks.0', 'layers.1.blocks.1']
    assert torch.equal(found.blocks['blocks.2'].float(), vit.blocks[2].attn.rope.freqs)
    assert frequencies_of(RoPEViT(rope='axial', **TINY)).blocks['blocks.0'].shape == (2, 1, 8)
    assert frequencies_of(RoPEViT(rope=None, **TINY)).blocks == {}


@pytest.mark.parametrize(
    'backbone, mixed, theta, axial_theta',
    [
        (RoPEViT(**TINY), True, 10, 100),
        (RoPESwin(**TINY_SWIN), True, 10, 50),
        (RoPESwin(rope='axial', rope_theta=7, **TINY_SWIN), False, 10, 7),
        (RoPEViT(rope_theta=7, **TINY), True, 7, 100),
        (RoPEViT(dict(embed_dims=8, depth=2, num_heads=1)), True, 10, 100),
    ],
)
def test_kind_and_bases_are_the_backbones(backbone: RoPEViT, mixed: bool, theta: float, axial_theta: float) -> None:
    found = frequencies_of(backbone)
    assert (found.mixed, found.theta, found.axial_theta) == (mixed, theta, axial_theta)
    assert (len(reconstruction_sets(found, 8)) > 1) == mixed


def test_frequencies_per_token_turn_neighbours_as_the_backbone_turns_them() -> None:
    """On a 6 x 6 grid, of each rule of positions; in windows of 4 with a frame of their own."""
    for rule in (dict(rule='index'), dict(rule='reference', ref=24), dict(rule='centred')):
        backbone = RoPEViT(positions=rule, window_size=4, global_attn_indexes=(0,), window_frame=True, **TINY)
        found = frequencies_of(backbone)
        for block, side in enumerate((6, 4, 4)):
            name = f'blocks.{block}'
            angles = backbone.blocks[block].attn.rope((4, 4), (6, 6)).double()
            torch.testing.assert_close(found.per_token(name, 6), angles[:, 1] - angles[:, 0], rtol=1e-5, atol=1e-6)
            step = {'index': 1.0, 'reference': 24 / side, 'centred': 4 * math.pi / side}[rule['rule']]
            axial = reconstruction_sets(found.only(name), 6)['axial'][0]
            torch.testing.assert_close(axial, axial_freqs(16, 100.0).double() * step, rtol=1e-6, atol=0)


def test_an_initial_set_has_not_changed_and_its_angle_is_found() -> None:
    angles = torch.tensor([0.3, -2.5, math.pi / 2])
    for initial in (None, mixed_freqs(16, angles, 10.0)):
        found = changes(mixed_freqs(16, angles, 10.0), 10.0, initial)
        assert [head.angle for head in found] == pytest.approx(angles.tolist(), abs=1e-6)
        assert [head.change for head in found] == pytest.approx([0] * 3, abs=1e-6)
        assert [ratio for head in found for ratio in head.magnitudes] == pytest.approx([1] * 24, rel=1e-6)


def test_the_nearest_initial_set_is_the_nearest_of_all_angles() -> None:
    freqs = mixed_freqs(16, torch.tensor([1.1]), 10.0) + 0.3 * torch.randn(2, 1, 8)
    (found,) = changes(freqs, 10.0)
    angles = torch.arange(-314, 315) / 100
    sets = mixed_freqs(16, angles, 10.0)  # (2, 629, 8)
    distances = (sets - freqs).square().sum((0, 2)).sqrt() / sets.square().sum((0, 2)).sqrt()
    assert found.change == pytest.approx(float(distances.min()), rel=1e-3)
    assert found.angle == pytest.approx(float(angles[distances.argmin()]), abs=0.006)


def test_the_change_from_a_known_start() -> None:
    initial = mixed_freqs(8, torch.tensor([0.5, 2.0]), 10.0)
    learned = initial.clone()
    learned[:, 1] *= 3
    first, second = changes(learned, 10.0, initial)
    assert (first.change, second.change) == pytest.approx((0, 2), abs=1e-6)
    assert second.magnitudes == pytest.approx([3] * 4, rel=1e-6)


def written_out(function: Tensor, kept: list[tuple[int, int]]) -> Tensor:
    """Projections on cosines and sines, one (kx, ky) at a time; the mean comes with (0, 0)."""
    height, width = function.shape
    rows, cols = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    out = torch.zeros_like(function)
    for kx, ky in kept:
        phase = 2 * math.pi * (kx * cols / width + ky * rows / height)
        for wave in (phase.cos(), phase.sin()):
            if wave.abs().max() > 1e-9:
                out += (function * wave).sum() / wave.square().sum() * wave
    return out


def test_a_reconstruction_is_the_sum_of_its_waves(close: Callable[..., None]) -> None:
    function = torch.randn(9, 16, dtype=torch.float64)
    # in steps of the spectrum: whole ones, one as the negative of another, one off by 0.4, one beyond half a turn, none
    x = torch.tensor([3, -2, 2, 2.4, 16 + 5, 0]) * 2 * math.pi / 16
    y = torch.tensor([1, 3, -3, 0, 2, 0.2]) * 2 * math.pi / 9
    ours, points = reconstruct(function, torch.stack((x, y)))
    kept = [(0, 0), (3, 1), (2, -3), (2, 0), (5, 2)]
    close(ours, written_out(function, kept))
    assert points == 1 + 2 * 4


def test_all_frequencies_represent_all_and_none_the_mean() -> None:
    function = torch.randn(8, 8, dtype=torch.float64)
    steps = torch.arange(8) * 2 * math.pi / 8
    everything = torch.stack((steps.repeat(8), steps.repeat_interleave(8)))
    assert error(function, reconstruct(function, everything)[0]) == pytest.approx(0, abs=1e-20)
    nothing, points = reconstruct(function, torch.zeros(2, 1))
    assert points == 1 and error(function, nothing) == pytest.approx(1)


def test_axial_frequencies_make_sums_of_rows_and_columns() -> None:
    """Such a function is that of its row plus that of its column: its mixed differences are zero."""
    kept, _ = reconstruct(target_functions(32)['diagonal bar'], axial_freqs(32, 100.0))
    assert kept.diff(dim=0).diff(dim=1).abs().max() < 1e-12
    mixed, _ = reconstruct(target_functions(32)['diagonal bar'], mixed_freqs(32, torch.tensor([0.8]), 10.0))
    assert mixed.diff(dim=0).diff(dim=1).abs().max() > 1e-3


def test_a_grid_without_room_for_the_functions_is_refused() -> None:
    with pytest.raises(ValueError, match=r'size .*\b8\b.*\b7\b'):
        target_functions(7)


def test_the_study_averages_over_heads_and_blocks() -> None:
    frequencies = frequencies_of(RoPEViT(**TINY))
    functions = target_functions(24)
    sets = reconstruction_sets(frequencies, 24)
    sizes = {'axial': 3, 'initial, one head': 30, 'initial, all heads': 15, 'learned, one head': 6}
    assert {name: len(members) for name, members in sets.items()} == {**sizes, 'learned, all heads': 3}
    errors = reconstruction_errors(functions, frequencies)
    heads = [part[:, n] for part in frequencies.blocks.values() for n in range(2)]
    expected = sum(error(functions['ring'], reconstruct(functions['ring'], head)[0]) for head in heads) / 6
    assert errors['ring']['learned, one head'] == pytest.approx(expected)
    assert errors['ring']['learned, all heads'] < errors['ring']['learned, one head']
    assert errors == reconstruction_errors(functions, frequencies)
    assert list(reconstruction_sets(frequencies_of(RoPEViT(rope='axial', **TINY)), 24)) == ['axial']
