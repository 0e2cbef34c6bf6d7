"""A global batch that is not the learning rate's gets one line, with a remedy."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmrope.commands.checks import batch_size
from mmrope.commands.checks.batch_size import ReportBatchSize, describe_mismatch, scale_by_step

VITDET = dict(base=64, batch_size=4, iterations=184375, images=118000)
SWIN = dict(base=16, batch_size=2, epochs=12)


@pytest.mark.parametrize(
    'training',
    [
        dict(VITDET, processes=16),
        dict(VITDET, processes=8, batch_size=8),
        dict(VITDET, processes=8, counts=2, iterations=368750),
        dict(SWIN, processes=8, scaled=True),
        dict(SWIN, processes=1, counts=8),
    ],
)
def test_nothing_is_said_of_the_batch_of_the_learning_rate(training: dict) -> None:
    assert describe_mismatch(**training) is None


WORDS: list[tuple[dict, list[str]]] = [
    (dict(VITDET, processes=8), ['32 (8 processes x 4 images)', '64 (auto_scale_lr', 'see 50 epochs, in place of 100',
        'batch_size by 2,', 'accumulative_counts and the iterations in train_cfg and param_scheduler by 2']),
    (dict(VITDET, processes=8, scaled=True), ['by 0.5 from that of 64', 'see 50 epochs, in place of 100', 'by 2']),
    (dict(VITDET, processes=1), ['is 4 ', 'see 6.25 epochs', 'batch_size by 16', 'param_scheduler by 16']),
    (dict(VITDET, processes=16, counts=2, iterations=368750), ['128 (16 processes x 4 images x 2 accumulated)',
        'see 200 epochs, in place of 100', 'batch_size by 0.5, or', 'param_scheduler by 0.5']),
    (dict(SWIN, processes=1), ['is 2 ', 'of 16 ', '12 epochs are seen', 'the iterations in param_scheduler by 8']),
    (dict(SWIN, processes=4, scaled=True), ['is 8 ', 'by 0.5 from that of 16', '12 epochs are seen']),
    (dict(SWIN, processes=3), ['is 6 ', 'of 16 ', '12 epochs are seen', 'use --auto-scale-lr']),
]  # fmt: skip


@pytest.mark.parametrize(('training', 'words'), WORDS)
def test_another_batch_comes_with_both_numbers_the_epochs_and_a_remedy(training: dict, words: list[str]) -> None:
    line = describe_mismatch(**training)
    assert '\n' not in line
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    'training', [dict(VITDET, processes=8), dict(VITDET, processes=16, counts=2, iterations=368750)]
)
def test_its_remedies_leave_nothing_to_say(training: dict) -> None:
    factor = float(describe_mismatch(**training).rpartition(' by ')[2])
    assert describe_mismatch(**{**training, 'batch_size': training['batch_size'] * factor}) is None
    counts = training.get('counts', 1) * factor
    assert describe_mismatch(**{**training, 'counts': counts}) is None
    seen = training['iterations'] * factor * training['processes'] * training['batch_size']
    assert seen / training['images'] == pytest.approx(100, rel=1e-4)


class Loops(SimpleNamespace):
    """Loops of the length that a test asks for."""

    iterations = type('Iterations', (IterBasedTrainLoop,), {'__init__': lambda self, **kw: vars(self).update(kw)})
    epochs = type('Epochs', (EpochBasedTrainLoop,), {'__init__': lambda self, **kw: vars(self).update(kw)})


def runner(loop: object, **config: object) -> SimpleNamespace:
    said: list[str] = []
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16), optim_wrapper=dict(), **config))
    return SimpleNamespace(train_loop=loop, cfg=cfg, said=said, logger=SimpleNamespace(warning=said.append))


def loader(size: int | None = 2) -> SimpleNamespace:
    return SimpleNamespace(batch_sampler=SimpleNamespace(batch_size=size) if size else None, dataset=range(40))


@pytest.mark.parametrize(
    ('loop', 'words'),
    [
        (Loops.iterations(dataloader=loader(), _max_iters=80, _max_epochs=1), '80 iterations see 8 epochs, in place'),
        (Loops.epochs(dataloader=loader(), _max_epochs=3), '3 epochs are seen'),
    ],
)  # fmt: skip
def test_the_hook_reads_both_kinds_of_loop(monkeypatch: pytest.MonkeyPatch, loop: object, words: str) -> None:
    monkeypatch.setattr(batch_size, 'get_world_size', lambda: 2)
    run = runner(loop)
    ReportBatchSize().before_train(run)
    (line,) = run.said
    assert 'batch is 4 (2 processes x 2 images)' in line and words in line


def test_the_hook_is_silent_where_a_number_is_unknown() -> None:
    run = runner(Loops.epochs(dataloader=loader(None), _max_epochs=3))
    ReportBatchSize().before_train(run)
    run.train_loop.dataloader, run.cfg.auto_scale_lr = loader(), None
    ReportBatchSize().before_train(run)
    run.cfg.auto_scale_lr, run.train_loop.dataloader.dataset = dict(base_batch_size=16), iter(range(40))
    ReportBatchSize().before_train(run)
    assert run.said == []


@pytest.mark.parametrize(('counts', 'expected'), [(1, 16), (2, 8)])
def test_the_rate_is_scaled_by_the_images_of_a_step(counts: int, expected: float) -> None:
    """MMEngine scales by those of an iteration, over what it is told the base is."""
    run = runner(None)
    run.auto_scale_lr = dict(run.cfg.auto_scale_lr, enable=True)
    run.cfg.optim_wrapper = dict(accumulative_counts=counts)
    scale_by_step(run)
    assert run.auto_scale_lr == dict(base_batch_size=expected, enable=True)
