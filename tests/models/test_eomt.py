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
import torch.nn.functional as F
from torch import Tensor

from mmrope import RoPEViT
from mmrope.models import EoMT, OpenTokens
from tests.helpers import transformers_eomt as oracle
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
