"""The masks of EoMT's attention are trained away by the number of the iteration alone."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmrope import RoPEViT
from mmrope.engine import MaskAnnealingHook
from mmrope.models import EoMT
from tests.helpers.isolation import isolated


@pytest.fixture(autouse=True)
def isolated_test() -> Iterator[None]:
    with isolated():
        yield


class Toy(BaseModel):
    """A backbone with open blocks, EoMT, and a note of the probabilities of each step."""

    def __init__(self) -> None:
        super().__init__()
        arch = dict(embed_dims=8, depth=3, num_heads=2)
        self.backbone = RoPEViT(arch, patch_size=8, out_indices=(), final_norm=True, open_blocks=2)
        self.eomt = EoMT(8, 2, 3, 2, 8)
        self.seen: list[list[float]] = []

    def forward(self, inputs: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
        self.seen.append(self.eomt.mask_probabilities)
        return dict(loss=sum(prediction.masks.square().mean() for prediction in self.eomt(self.backbone(inputs)[-1])))


def runner(folder: Path, hook: dict[str, Any], train_cfg: dict[str, Any], **settings: Any) -> Runner:
    return Runner(
        Toy(),
        str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.randn(3, 16, 24)) for _ in range(8)],
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5)),
        custom_hooks=[dict(type='mmrope.MaskAnnealingHook', **hook)],
        randomness=dict(seed=0),
        **settings,
    )


def probabilities(blocks: int, length: int, iterations: list[int], **settings: Any) -> list[list[float]]:
    """Those of each block, at some iterations of a training."""
    model = nn.ModuleDict(dict(decode_head=EoMT(4, 2, 3, blocks)))
    hook, stand_in = MaskAnnealingHook(**settings), SimpleNamespace(model=model, max_iters=length)
    hook.before_train(stand_in)
    out = []
    for stand_in.iter in iterations:
        hook.before_train_iter(stand_in, 0)
        out.append(model['decode_head'].mask_probabilities)
    return [list(block) for block in zip(*out)]


# steps of the authors' configs for DINOv2 on COCO: blocks, length, first and last steps of the fall
PUBLISHED = [
    (4, 88692, [14782, 29564, 44346, 59128], [29564, 44346, 59128, 73910]),
    (3, 177384, [29564, 73910, 118256], [59128, 103474, 147820]),
]


@pytest.mark.parametrize('blocks, length, begin, end', PUBLISHED)
def test_the_default_is_that_of_the_published_configs(
    blocks: int, length: int, begin: list[int], end: list[int]
) -> None:
    for block, (first, last) in enumerate(zip(begin, end)):
        steps = [0, first, first + 1, (first + last) // 2, last - 1, last, length - 1]
        p = probabilities(blocks, length, steps)[block]
        assert p[:2] == [1.0, 1.0] and p[5:] == [0.0, 0.0]
        assert p[3] == pytest.approx(0.5**0.9, rel=1e-3) and 1 > p[2] > p[3] > p[4] > 0
        assert p[2] == pytest.approx((1 - 1 / (last - first)) ** 0.9, abs=1e-9)


def test_one_block_falls_first_of_all() -> None:
    assert probabilities(1, 60, [9, 10, 15, 20]) == [[1.0, 1.0, pytest.approx(0.5**0.9), 0.0]]


def test_iterations_and_shares_of_the_training_can_be_given() -> None:
    settings = dict(begin=(0, 0.5), end=(30, 1.0), power=1)
    assert probabilities(2, 100, [0, 15, 30, 50, 75, 99], **settings) == [
        [1.0, 0.5, 0.0, 0.0, 0.0, 0.0],
        pytest.approx([1.0, 1.0, 1.0, 1.0, 0.5, 0.02]),
    ]
    assert probabilities(2, 100, [39, 40], begin=(40, 40), end=(40, 40)) == [[1.0, 0.0]] * 2, 'a step'


@pytest.mark.parametrize('train_cfg', [dict(by_epoch=False, max_iters=12), dict(by_epoch=True, max_epochs=3)])
def test_the_length_is_that_of_the_loop(tmp_path: Path, train_cfg: dict[str, Any]) -> None:
    training = runner(tmp_path, {}, train_cfg)
    training.train()
    fall = [1 - 1 / 2, 0.0]  # from 2 to 4 of 12, and from 8 to 10
    expected = [1, 1, 1, fall[0] ** 0.9, 0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, fall[0] ** 0.9, 0, 0]
    assert [list(block) for block in zip(*training.model.seen)] == [pytest.approx(block) for block in expected]


def test_a_resumed_training_goes_on_with_the_same_probabilities(tmp_path: Path) -> None:
    loop = dict(by_epoch=False, max_iters=12)
    hook = dict(begin=(0, 0.25), end=(11, 0.9))
    whole = runner(tmp_path / 'a', hook, loop)
    whole.train()
    resumed = runner(tmp_path / 'b', hook, loop, load_from=str(tmp_path / 'a' / 'iter_5.pth'), resume=True)
    resumed.train()
    assert len(resumed.model.seen) == 7 and resumed.model.seen == whole.model.seen[5:]


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(begin=0.1), 'begin must be None or hold ints of at least 0 or floats from 0 to 1, but got 0.1'),
        (dict(begin=(-1, 2)), r'begin must be .*, but got \(-1, 2\)'),
        (dict(end=(0.5, 1.5)), r'end must be .*, but got \(0.5, 1.5\)'),
        (dict(end='12'), "end must be .*, but got '12'"),
        (dict(power=0), 'power must be a positive number, but got 0'),
        (dict(begin=(1, 2, 3)), r'begin must hold 2 values, one for each open block, but got \(1, 2, 3\)'),
        (dict(end=(0.9,)), r'end must hold 2 values, one for each open block, but got \(0.9,\)'),
        (dict(begin=(0, 90), end=(10, 80)), r'begin must not be after end .*, but got \[0, 90\] and \[10, 80\]'),
        (dict(begin=(0.9, 0.9)), r'begin must not be after end .*, but got \[90.*\] and \[33.*\]'),
    ],
)
def test_arguments_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probabilities(2, 100, [0], **settings)


def test_a_model_without_eomt_is_named() -> None:
    with pytest.raises(ValueError, match='model must hold an mmrope.models.EoMT, but got Linear'):
        MaskAnnealingHook().before_train(SimpleNamespace(model=nn.Linear(1, 1), max_iters=10))
