"""A training whose numbers are not finite stops before anything is spoilt; frequencies are logged."""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmrope import RoPESwin, RoPEViT
from mmrope.engine.finite_loss_hook import NonFiniteError
from tests.helpers.isolation import isolated


@pytest.fixture(autouse=True)
def isolated_test() -> Iterator[None]:
    with isolated():
        yield


BACKBONES = {
    'mixed': lambda: RoPEViT(dict(embed_dims=8, depth=2, num_heads=2), patch_size=8, window_size=2),
    'axial': lambda: RoPEViT(dict(embed_dims=8, depth=2, num_heads=2), patch_size=8, rope='axial'),
    'swin': lambda: RoPESwin(dict(embed_dims=8, depths=(2,), num_heads=(2,)), out_indices=(0,), window_size=5),
}


class Toy(BaseModel):
    """A backbone and two losses; what ``spoil`` does with iteration, model and losses goes wrong."""

    def __init__(self, spoil: Callable, backbone: str = 'mixed') -> None:
        super().__init__()
        self.backbone, self.head, self.unused = BACKBONES[backbone](), nn.Linear(8, 1), nn.Linear(2, 2)
        self.register_buffer('mask', torch.tensor(-math.inf))  # as of an attention
        self.register_buffer('count', torch.tensor(0.0))
        self.spoil, self.calls = spoil, 0

    def forward(self, inputs: torch.Tensor, data_samples: list, mode: str = 'tensor') -> dict:
        self.calls += 1
        features = self.backbone(inputs)[-1].mean((2, 3))
        losses = dict(loss_a=self.head(features).mean() + 2, loss_b=[features.square().mean()], acc=features.sum())
        self.spoil(self, losses)
        return losses


def images(batch: list) -> dict:
    return dict(inputs=torch.stack(batch), data_samples=[SimpleNamespace(img_path=f'{i}.png') for i in range(2)])


def train(folder: Path, spoil: Callable, by_epoch: bool = False, backbone: str = 'mixed', **checkpoints) -> Runner:
    torch.manual_seed(0)
    loop = dict(type='EpochBasedTrainLoop', max_epochs=3) if by_epoch else dict(type='IterBasedTrainLoop', max_iters=12)
    runner = Runner(
        Toy(spoil, backbone),
        str(folder),
        train_dataloader=dict(
            dataset=[torch.randn(3, 20, 28) for _ in range(8)],
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=images,
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=1.0)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2),
            checkpoint=dict(
                type='CheckpointHook', by_epoch=by_epoch, **{'interval': 1 if by_epoch else 4, **checkpoints}
            ),
        ),
        custom_hooks=[dict(type='mmrope.FiniteLossHook'), dict(type='mmrope.LogFreqsHook')],
        default_scope='mmengine',
        log_processor=dict(by_epoch=by_epoch),
        experiment_name=f'{folder.name}_{id(spoil)}_{by_epoch}',
        randomness=dict(seed=0),
    )
    try:
        runner.train()
    except NonFiniteError as error:
        assert '\n' not in str(error)
        runner.error = str(error)
    return runner


def at(iteration: int, change: Callable) -> Callable:
    def spoil(model: Toy, losses: dict) -> None:
        if model.calls == iteration:
            change(model, losses)

    return spoil


def to_nan(model: Toy, losses: dict) -> None:
    losses['loss_b'][0] = losses['loss_b'][0] * math.nan


def gradient_to_nan(model: Toy, losses: dict) -> None:
    """A loss that is finite, with a gradient that is not: the square root of 0."""
    losses['loss_a'] = losses['loss_a'] + (model.head.weight.sum() * 0).sqrt()


def is_finite(path: Path) -> bool:
    state = torch.load(path, weights_only=False)['state_dict']
    return all(value.isfinite().all() for name, value in state.items() if name != 'mask')


def test_a_loss_that_is_nan_stops_before_the_weights_learn_from_it(tmp_path: Path) -> None:
    runner = train(tmp_path, at(7, to_nan))
    assert re.search(r'\biteration 7\b.*\bloss_a = .*\bloss_b = nan\b', runner.error)
    assert re.search(r'\bgradients\b.* backbone\.patch_embed', runner.error)
    assert '0.png, 1.png' in runner.error and f'{tmp_path}/iter_4.pth' in runner.error
    assert 'head.' not in runner.error and 'unused' not in runner.error
    assert all(param.isfinite().all() for param in runner.model.parameters())
    assert runner.iter == 6 and is_finite(tmp_path / 'iter_4.pth')
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_4.pth']


def test_an_infinite_loss_stops_and_says_that_there_is_no_checkpoint(tmp_path: Path) -> None:
    runner = train(tmp_path, at(2, lambda model, losses: losses.update(loss_a=losses['loss_a'] * math.inf)))
    assert re.search(r'\biteration 2\b.*\bloss_a = inf\b.*\bgradients\b.*no checkpoint', runner.error)


def test_weights_that_are_nan_already_are_told_from_a_loss_that_made_them(tmp_path: Path) -> None:
    def break_a_weight(model: Toy, losses: dict) -> None:
        model.head.bias.data.fill_(math.nan)

    runner = train(tmp_path, at(5, break_a_weight))
    assert re.search(r'\biteration 6\b.*\bweights\b.*\bhead\.bias\b', runner.error) and 'gradients' not in runner.error


def test_pixels_that_are_nan_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = images

    def collate(batch: list) -> dict:
        out = good(batch)
        out['inputs'][1, 0, 3, 4] = math.nan
        return out

    monkeypatch.setitem(globals(), 'images', collate)
    assert re.search(r'\bpixels\b.* 0\.png, 1\.png', train(tmp_path, lambda model, losses: None).error)


@pytest.mark.parametrize('by_epoch', [False, True])
def test_weights_that_are_nan_replace_no_checkpoint(tmp_path: Path, by_epoch: bool) -> None:
    """A step with a gradient that is NaN, of the iteration that a checkpoint follows; one checkpoint is kept."""
    runner = train(tmp_path, at(8, gradient_to_nan), by_epoch=by_epoch, max_keep_ckpts=1)
    last = 'epoch_1.pth' if by_epoch else 'iter_4.pth'
    assert re.search(rf'\biteration 8\b.*{tmp_path}/{last}', runner.error) and 'loss_' not in runner.error
    assert [path.name for path in tmp_path.glob('*.pth')] == [last] and is_finite(tmp_path / last)


def test_a_good_training_is_left_alone_and_the_hook_goes(tmp_path: Path) -> None:
    runner = train(tmp_path, lambda model, losses: None)
    assert runner.iter == 12 and not hasattr(runner, 'error') and not runner.model._forward_hooks
    plain = train(tmp_path / 'plain', lambda model, losses: None)
    for ours, theirs in zip(runner.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)  # two trainings under one seed


def test_a_buffer_that_becomes_infinite_is_named_beside_one_that_always_was(tmp_path: Path) -> None:
    runner = train(tmp_path, at(4, lambda model, losses: model.count.fill_(math.inf)))
    assert re.search(r'\biteration 4\b.*: count;', runner.error)


def test_losses_that_are_empty_lists_are_left_to_mmengine(tmp_path: Path) -> None:
    def empty(model: Toy, losses: dict) -> None:
        losses.pop('loss_a')
        losses['loss_b'] = []

    with pytest.raises(Exception, match='backward'):
        train(tmp_path, at(2, empty))


def scalars(folder: Path) -> list[dict]:
    (path,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize('backbone', ['mixed', 'swin'])
def test_frequencies_and_their_gradients_are_logged(tmp_path: Path, backbone: str) -> None:
    grads: list[torch.Tensor] = []

    def watch(model: Toy, losses: dict) -> None:
        if model.calls == 12:
            for name, param in model.named_parameters():
                if name.endswith('rope.freqs'):
                    param.register_hook(lambda grad: grads.append(grad.clone()))
            watched.extend(param.detach().clone() for name, param in model.named_parameters() if 'freqs' in name)

    watched: list[torch.Tensor] = []
    runner = train(tmp_path, watch, backbone=backbone)
    lines = scalars(tmp_path)
    assert len(lines) == 6 and all({'freqs_norm', 'freqs_max', 'freqs_grad'} <= set(x) for x in lines)
    freqs = [param.detach() for name, param in runner.model.named_parameters() if 'freqs' in name]
    assert lines[-1]['freqs_norm'] == pytest.approx(torch.cat([x.flatten() for x in freqs]).norm().item())
    assert lines[-1]['freqs_max'] == pytest.approx(max(x.abs().max().item() for x in freqs))
    assert lines[-1]['freqs_grad'] == pytest.approx(torch.cat([x.flatten() for x in grads]).norm().item(), rel=1e-5)
    assert len(grads) == 2 and lines[0]['freqs_norm'] != lines[-1]['freqs_norm']


def test_axial_frequencies_do_not_learn_and_are_not_logged(tmp_path: Path) -> None:
    train(tmp_path, lambda model, losses: None, backbone='axial')
    line = scalars(tmp_path)[-1]
    assert not [name for name in line if 'freqs' in name]
