"""EoMT against transformers, against loops in float64, and what its masks promise."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrope import RoPEViT
from mmrope.models import EoMT, OpenTokens
from tests.helpers import transformers_eomt as oracle
from tests.helpers.plain_eomt import plain_eomt
from tests.helpers.tiny import ROOT, python_path

NUMBERS = Path(oracle.__file__).with_name('eomt_numbers.npz')
CASES = [(model, mode) for model in oracle.MODELS for mode in oracle.MODES]
cases = pytest.mark.parametrize('model, mode', CASES, ids=lambda value: value)


def ours(model: str, mode: str) -> tuple[EoMT, list]:
    backbone, eomt = oracle.build(model)
    for module in (backbone, eomt):
        module.train(mode != 'eval')
    eomt.mask_probabilities = list(oracle.MODES[mode])
    torch.manual_seed(oracle.SEED)
    return eomt, eomt(backbone(oracle.images())[-1])


def assert_relative(ours: Tensor, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    """The largest difference is small beside the largest value."""
    theirs = torch.from_numpy(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


def compare(numbers: dict[str, np.ndarray], model: str, mode: str) -> None:
    eomt, made = ours(model, mode)
    assert_relative(torch.stack([out.classes for out in made]), numbers[f'{model}.{mode}.classes'])
    assert_relative(torch.stack([out.masks for out in made])[..., ::3, ::3], numbers[f'{model}.{mode}.masks'])
    sum(out.classes.square().mean() + out.masks.square().mean() for out in made).backward()
    assert_relative(eomt.queries.grad, numbers[f'{model}.{mode}.query_grad'], 1e-4)


@cases
def test_predictions_and_gradients_equal_those_of_transformers(model: str, mode: str) -> None:
    compare(dict(np.load(NUMBERS)), model, mode)


@pytest.mark.parametrize('model', oracle.MODELS)
def test_the_numbers_of_transformers_tell_the_modes_apart(model: str) -> None:
    """A wrong mask would not pass unseen."""
    numbers = np.load(NUMBERS)
    last = [numbers[f'{model}.{mode}.masks'][-1] for mode in oracle.MODES]
    for i, one in enumerate(last):
        for other in last[:i]:
            assert np.abs(one - other).max() > 0.05 * np.abs(one).max()


@pytest.mark.slow
def test_the_numbers_are_those_of_the_transformers_at_hand(tmp_path: Path) -> None:
    """Set MMROPE_TRANSFORMERS to a folder that holds transformers 5, or install it; it may not be MMPreTrain's."""
    folder = os.environ.get('MMROPE_TRANSFORMERS')
    if folder is None and find_spec('transformers') is None:
        pytest.skip('needs transformers 5, installed or in the folder MMROPE_TRANSFORMERS')
    path = os.pathsep.join([python_path(), *filter(None, [folder])])
    script = ROOT / 'tests' / 'helpers' / 'transformers_eomt.py'
    subprocess.run([sys.executable, script, tmp_path / 'new.npz'], check=True, env={**os.environ, 'PYTHONPATH': path})
    new, kept = np.load(tmp_path / 'new.npz'), np.load(NUMBERS)
    assert sorted(new) == sorted(kept)
    for key in new:
        assert np.abs(new[key] - kept[key]).max() <= 1e-5 * np.abs(kept[key]).max()
    for model, mode in CASES:
        compare(dict(new), model, mode)


LAYOUTS = {
    'global': dict(),
    'axial, cls token': dict(rope='axial', with_cls_token=True),
    'registers, patches of 16': dict(with_cls_token=True, num_registers=2, patch_size=16),
    'windows': dict(window_size=2, global_attn_indexes=(0, 2, 3)),
    'windows with a cls token': dict(window_size=2, global_attn_indexes=(2, 3), with_cls_token=True),
    'every block open': dict(open_blocks=4, ape=True),
    'centred positions': dict(positions=dict(rule='centred'), num_registers=1),
}
layouts = pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS.keys())


def make(probability: float = 1.0, **settings) -> tuple[RoPEViT, EoMT]:
    """A small backbone and its EoMT, with weights by which masks have borders and matter."""
    arch = dict(embed_dims=16, depth=4, num_heads=2)
    common = dict(img_size=24, patch_size=8, final_norm=True, out_indices=(), open_blocks=2, layer_scale_init_value=1.0)
    settings = {**common, **settings}
    backbone = RoPEViT(arch, **settings)
    eomt = EoMT(16, 3, 5, settings['open_blocks'], settings['patch_size'])
    for param in (*backbone.parameters(), *eomt.parameters()):
        if param.ndim > 1:
            torch.nn.init.normal_(param, std=0.4)
    eomt.mask_probabilities = [probability] * settings['open_blocks']
    return backbone, eomt


def leaves(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers in float64, which gather gradients of their own."""
    return {
        name: value.detach().double().requires_grad_(value.is_floating_point())
        for name, value in [*module.named_parameters(), *module.named_buffers()]
    }


@layouts
@pytest.mark.parametrize('mode', ['eval', 'masked', 'annealed'])
def test_predictions_and_all_gradients_equal_loops(layout: dict, mode: str, close: Callable[..., None]) -> None:
    backbone, eomt = make(dict(eval=1.0, masked=1.0, annealed=0.4)[mode], **layout)
    backbone.double().train(mode != 'eval'), eomt.double().train(mode != 'eval')
    patch = backbone.patch_embed.patch_size[0]
    x = torch.randn(2, 3, 3 * patch, 5 * patch - 3).double()
    weights, head = leaves(backbone), leaves(eomt)
    torch.manual_seed(3)
    made = eomt(backbone(x)[-1])
    torch.manual_seed(3)
    keeps = [
        torch.rand(2, 5) <= 0.4 if mode == 'annealed' else torch.ones(2, 5) > 0 for _ in range(backbone.open_blocks)
    ]
    whole = set(layout.get('global_attn_indexes', range(4)))
    plain = plain_eomt(backbone, eomt, x, weights, head, whole, None if mode == 'eval' else keeps)
    assert len(made) == len(plain) == (1 if mode == 'eval' else backbone.open_blocks + 1)
    for ours, theirs in zip(made, plain):
        scale = theirs[1].abs().max()
        close(ours.classes, theirs[0]), close(ours.masks / scale, theirs[1] / scale)
    for outs in (made, plain):
        sum(classes.square().mean() + masks.square().mean() for classes, masks in outs).backward()
    for module, values in ((backbone, weights), (eomt, head)):
        for name, param in module.named_parameters():
            scale = values[name].grad.abs().max()
            assert scale > 0, name
            assert (param.grad - values[name].grad).abs().max() < 1e-11 * scale, name


def forward(backbone: RoPEViT, eomt: EoMT, x: Tensor, seed: int = 5) -> list[Tensor]:
    torch.manual_seed(seed)
    return [logits for prediction in eomt(backbone(x)[-1]) for logits in prediction]


def test_probability_0_is_no_mask_and_neither_0_nor_1_draws() -> None:
    x = torch.randn(2, 3, 24, 40)
    backbone, eomt = make(0.0)
    state = torch.get_rng_state()
    without = eomt(backbone(x)[-1])[-1]
    eomt.mask_probabilities = [1.0, 1.0]
    masked = eomt(backbone(x)[-1])[-1]
    assert torch.equal(torch.get_rng_state(), state)
    (in_eval,) = eomt.eval()(backbone.eval()(x)[-1])
    assert torch.equal(without.masks, in_eval.masks) and torch.equal(without.classes, in_eval.classes)
    assert (without.masks - masked.masks).abs().max() > 0.05 * masked.masks.abs().max()


def test_eval_mode_draws_nothing_and_knows_no_mask() -> None:
    backbone, eomt = make(0.5)
    backbone.eval(), eomt.eval()
    x, state = torch.randn(2, 3, 24, 40), torch.get_rng_state()
    (half,) = eomt(backbone(x)[-1])
    assert torch.equal(torch.get_rng_state(), state)
    eomt.mask_probabilities = [1.0, 1.0]
    assert torch.equal(eomt(backbone(x)[-1])[0].masks, half.masks)


def test_each_query_of_each_image_keeps_its_mask_with_the_probability() -> None:
    eomt = EoMT(4, 2, 50, 1)
    tokens = OpenTokens(torch.zeros(40, 1 + 6, 4), (2, 3), [], torch.nn.Identity())
    mask = eomt._attention_mask(-torch.ones(40, 50, 8, 12), tokens, 0.3)
    assert mask.shape == (40, 50, 50 + 1 + 6) and mask.dtype == torch.bool
    assert mask[:, :, :51].all(), 'queries and prefix tokens are always seen'
    kept = ~mask[:, :, 51:].any(-1)
    assert torch.equal(kept, ~mask[:, :, 51:].all(-1)), 'a mask is kept whole or not at all'
    deviation = (0.3 * 0.7 / 2000) ** 0.5
    assert abs(kept.double().mean() - 0.3) < 4 * deviation
    assert kept.sum(0).unique().numel() > 3 and kept.sum(1).unique().numel() > 3


@pytest.mark.parametrize('prefix', [0, 2])
def test_queries_that_may_see_no_patch_stay_finite(prefix: int) -> None:
    backbone, eomt = make(1.0, num_registers=prefix)
    torch.nn.init.zeros_(eomt.masks[-1].weight), torch.nn.init.constant_(eomt.masks[-1].bias, -1.0)
    eomt.upscale.register_forward_hook(lambda module, args, out: out.abs())
    outs = forward(backbone, eomt, torch.randn(2, 3, 24, 40))
    assert all((masks < 0).all() for masks in outs[1::2])
    sum(out.square().mean() for out in outs).backward()
    params = [*backbone.parameters(), *eomt.parameters()]
    assert all(out.isfinite().all() for out in outs) and all(param.grad.isfinite().all() for param in params)


def gradients(backbone: RoPEViT, eomt: EoMT, x: Tensor) -> list[Tensor]:
    sum(out.square().mean() for out in forward(backbone, eomt, x)).backward()
    return [param.grad for param in (*backbone.parameters(), *eomt.parameters())]


def test_recomputed_blocks_have_the_same_gradients() -> None:
    x = torch.randn(2, 3, 24, 40)
    torch.manual_seed(0)
    plain = gradients(*make(0.5, with_cls_token=True), x)
    torch.manual_seed(0)
    backbone, eomt = make(0.5, with_cls_token=True, with_cp=True)
    runs = []
    for block in backbone.blocks:
        block.register_forward_pre_hook(lambda module, args: runs.append(module))
    again = gradients(backbone, eomt, x)
    assert len(runs) == 2 * len(backbone.blocks), 'open blocks are recomputed too'
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(one.abs().max()))


def test_a_frozen_backbone_leaves_only_the_queries_and_the_head_to_learn() -> None:
    backbone, eomt = make(0.5, frozen_stages=4)
    sum(out.square().mean() for out in forward(backbone, eomt, torch.randn(2, 3, 24, 40))).backward()
    assert not any(param.requires_grad for param in backbone.parameters())
    assert all(param.grad.abs().sum() > 0 for param in eomt.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_is_finite_and_near(dtype: torch.dtype) -> None:
    backbone, eomt = make(1.0)
    x = torch.randn(2, 3, 24, 40)
    with torch.no_grad():
        exact = forward(backbone, eomt, x)
    with torch.autocast('cpu', dtype):
        outs = forward(backbone, eomt, x)
        loss = sum(out.float().square().mean() for out in outs)
    loss.backward()
    assert (outs[1] - exact[1]).abs().max() < 0.05 * exact[1].abs().max()
    assert all(out.isfinite().all() for out in outs)
    assert all(param.grad.isfinite().all() for param in (*backbone.parameters(), *eomt.parameters()))


@pytest.mark.parametrize('patch, scale', [(4, 2), (8, 2), (14, 2), (16, 4), (32, 8)])
def test_masks_are_as_fine_as_the_paper_has_them(patch: int, scale: int) -> None:
    tokens = OpenTokens(torch.randn(2, 3 + 2 * 5, 8), (2, 5), [lambda x, mask=None: x], torch.nn.Identity())
    prediction = EoMT(8, 2, 4, 1, patch).eval()(tokens)[-1]
    assert prediction.masks.shape == (2, 4, 2 * scale, 5 * scale) and prediction.classes.shape == (2, 4, 3)


def test_another_number_of_blocks_is_named() -> None:
    backbone = make()[0]
    with pytest.raises(ValueError, match='num_blocks must be the open_blocks of the backbone, 2, but got 3'):
        EoMT(16, 3, 5, 3)(backbone(torch.randn(1, 3, 24, 24))[-1])


@pytest.mark.parametrize('name', ['embed_dims', 'num_classes', 'num_queries', 'num_blocks', 'patch_size'])
def test_arguments_out_of_range_are_named(name: str) -> None:
    good = dict(embed_dims=8, num_classes=2, num_queries=3, num_blocks=1, patch_size=16)
    with pytest.raises(ValueError, match=f'{name} must be an int of at least 1, but got 0'):
        EoMT(**{**good, name: 0})
