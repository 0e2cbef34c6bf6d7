"""A training of any length in epochs, with the schedules, intervals and loops that belong to it."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import LinearLR

from mmrope.commands.epochs import set_epochs
from mmrope.commands.errors import CommandError

CONFIGS = Path(__file__).parents[2] / 'configs'


def scaled(name: str, epochs: int, iterations: int) -> Config:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    set_epochs(cfg, epochs, iterations)
    return cfg


@pytest.mark.parametrize(
    ('name', 'warmup'), [('mask_rcnn_rope_mixed_vit_b_coco', 250), ('upernet_rope_mixed_vit_b_ade20k', 1500)]
)
@pytest.mark.parametrize('iterations', [5, 100, 10_000])
def test_iterations_become_epochs_with_a_warm_up_of_a_tenth_at_most(name: str, warmup: int, iterations: int) -> None:
    total, expected = 20 * iterations, min(warmup, 20 * iterations // 10)
    cfg = scaled(name, 20, iterations)
    assert cfg.train_cfg.type == 'EpochBasedTrainLoop' and cfg.train_cfg.max_epochs == 20
    first, second = cfg.param_scheduler
    assert (first.begin, first.end) == (0, expected) and second.end == total
    assert second.begin == (0 if name.startswith('mask') else expected)
    if name.startswith('mask'):  # the rate falls at the same shares of what follows the warm-up
        shares = [(step - expected) / (total - expected) for step in second.milestones]
        assert shares == pytest.approx([(step - 250) / (184375 - 250) for step in (163889, 177546)], abs=1 / total)
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    assert cfg.log_processor.by_epoch and cfg.default_hooks.logger.log_metric_by_epoch
    checkpoint = cfg.default_hooks.checkpoint
    assert checkpoint.by_epoch and checkpoint.interval == cfg.train_cfg.val_interval
    assert cfg.train_cfg.val_interval == (1 if name.startswith('mask') else 2)


@pytest.mark.parametrize(('epochs', 'milestones'), [(36, [24, 33]), (12, [8, 11]), (3, [2, 3]), (1, [1])])
def test_epochs_of_other_lengths_move_the_milestones(epochs: int, milestones: list[int]) -> None:
    cfg = scaled('mask_rcnn_rope_mixed_swin_t_coco', epochs, 100)
    warmup, steps = cfg.param_scheduler
    assert warmup.end == min(1000, epochs * 10) and not warmup.by_epoch
    assert (steps.milestones, steps.end, steps.by_epoch) == (milestones, epochs, True)
    assert cfg.train_cfg.max_epochs == epochs and 'batch_sampler' in cfg.train_dataloader


def test_a_cosine_lasts_from_the_warm_up_to_the_end() -> None:
    cfg = scaled('mask_rcnn_rope_mixed_swin_tiny_digits', 10, 20)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end, cosine.T_max) == (20, 20, 200, 180)


def test_of_a_single_iteration_the_warm_up_is_left() -> None:
    assert len(scaled('mask_rcnn_rope_mixed_swin_tiny_digits', 1, 1).param_scheduler) == 1


WARMUP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)


def test_a_cosine_in_iterations_needs_no_end() -> None:
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_rope_mixed_swin_t_coco.py')
    cosine = dict(type='CosineAnnealingLR', by_epoch=False, begin=500, T_max=9500)
    cfg.param_scheduler = [dict(WARMUP), cosine]
    set_epochs(cfg, 10, 100)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.T_max) == (100, 100, 900)


def test_milestones_in_iterations_need_an_end() -> None:
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_rope_mixed_swin_t_coco.py')
    cfg.param_scheduler = [dict(WARMUP), dict(type='MultiStepLR', by_epoch=False, milestones=[8000, 9000])]
    with pytest.raises(CommandError, match=r'param_scheduler\[1\], MultiStepLR, .*\bend\b'):
        set_epochs(cfg, 10, 100)


@pytest.mark.parametrize(
    ('iterations', 'warmup'), [(10_000, [500, 1000]), (750, [500, 1000]), (150, [100, 200]), (1, [0, 1])]
)
def test_the_warm_ups_within_a_schedule_take_a_tenth_at_most(iterations: int, warmup: list[int]) -> None:
    cfg = Config.fromfile(CONFIGS / 'upernet_rope_mixed_vit_b_ade20k.py')
    cfg.param_scheduler = [dict(type='mmrope.StagedPolyLR', warmup=(500, 1000), by_epoch=False, end=160_000)]
    set_epochs(cfg, 20, iterations)
    (scheduler,) = cfg.param_scheduler
    assert (scheduler.warmup, scheduler.end) == (warmup, 20 * iterations)


def test_milestones_and_step_sizes_count_from_the_beginning_of_their_schedule() -> None:
    """The full rate lasts for half of what follows the warm-up, as before."""
    cfg = Config.fromfile(CONFIGS / 'upernet_rope_mixed_vit_b_ade20k.py')
    cfg.train_cfg.max_iters = 2000
    common = dict(by_epoch=False, begin=1000, end=2000)
    steps = dict(type='MultiStepLR', milestones=[500, 800], **common)
    cfg.param_scheduler = [dict(WARMUP, end=1000), steps, dict(type='StepLR', step_size=250, **common)]
    set_epochs(cfg, 5, 100)
    warmup, steps, step = cfg.param_scheduler
    assert (warmup.end, steps.begin, steps.end) == (50, 50, 500)
    assert (steps.milestones, step.step_size) == ([225, 360], 112)


def test_a_warm_up_may_be_a_class() -> None:
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_rope_mixed_swin_t_coco.py')
    cfg.param_scheduler[0].type = LinearLR
    set_epochs(cfg, 36, 100)
    assert cfg.param_scheduler[0].end == 360
