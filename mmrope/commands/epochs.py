"""The length of a training in epochs, with all that belongs to it, in place of the length that a config has."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from .errors import CommandError
from .hosts import type_name

WARMUP = 10  # a warm-up takes at most one of this many iterations


def set_epochs(cfg: Config, epochs: int, iterations: int) -> None:
    """Make a training last some epochs: loop, sampler, schedules, and the intervals of validations and checkpoints.

    A warm-up keeps its iterations, but takes a tenth of the training at most. What follows it is scaled.

    Args:
        cfg: config of a training, in epochs or in iterations; changed in place.
        epochs: length of the training.
        iterations: number of iterations of an epoch.

    Raises:
        CommandError: if nothing says how long a schedule in iterations lasts.
    """
    loop, total = cfg.train_cfg, epochs * iterations
    counts_iterations = 'max_iters' in loop
    old = loop['max_iters'] if counts_iterations else loop['max_epochs']
    interval = max(1, round(loop.get('val_interval', 1) / old * epochs))
    schedulers = cfg.get('param_scheduler') or []
    schedulers = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.get('by_epoch', True)]
    warmup = max((scheduler['end'] for scheduler in by_iteration if _warms_up(scheduler)), default=0)
    length = old if counts_iterations else max(map(_length, by_iteration), default=0)
    for i, scheduler in enumerate(schedulers):
        last = scheduler.get('begin', 0) + max(scheduler.get('milestones', ()), default=0)
        if not scheduler.get('by_epoch', True) and last > length:
            raise CommandError(f'param_scheduler[{i}], {type_name(scheduler)}, counts iterations: give it an end, too')
    for scheduler in schedulers:
        if 'warmup' in scheduler:
            _shorten(scheduler, epochs if scheduler.get('by_epoch', True) else total)
        if scheduler.get('by_epoch', True):
            _rescale(scheduler, 0, old, 0, epochs)
        else:
            _rescale(scheduler, warmup, length, min(warmup, max(1, total // WARMUP)), total)
    if schedulers:  # of a very short training the warm-up alone is left
        cfg.param_scheduler = [one for one in schedulers if 'end' not in one or one['end'] > one.get('begin', 0)]
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=interval)
    if 'Infinite' in type_name(cfg.train_dataloader.get('sampler') or {}):
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    hooks = cfg.get('default_hooks') or {}
    if hooks.get('checkpoint'):
        hooks['checkpoint'].update(by_epoch=True, interval=interval)
    if 'log_metric_by_epoch' in (hooks.get('logger') or {}):
        hooks['logger']['log_metric_by_epoch'] = True
    if cfg.get('log_processor'):
        cfg.log_processor.by_epoch = True


def _length(scheduler: Mapping[str, Any]) -> int:
    """Return the last step of a schedule that says it."""
    rest = max(scheduler.get('T_max', 0), scheduler.get('total_steps', 0))
    return scheduler.get('end', scheduler.get('begin', 0) + rest)


def _warms_up(scheduler: Mapping[str, Any]) -> bool:
    """Say whether a schedule rises from the start of the training and ends before it."""
    rises = scheduler.get('start_factor', 1 / 3) < scheduler.get('end_factor', 1.0)
    return type_name(scheduler).endswith(('LinearLR', 'ConstantLR')) and rises and 'end' in scheduler


def _shorten(scheduler: Any, steps: int) -> None:
    """Shorten the warm-ups within a schedule where they would take more than a tenth of the training."""
    share = min(1.0, steps // WARMUP / max(1, sum(scheduler['warmup'])))
    scheduler['warmup'] = [int(part * share) for part in scheduler['warmup']]


def _rescale(scheduler: Any, warmup: int, length: int, new_warmup: int, new_length: int) -> None:
    """Move the steps of a schedule: those up to the warm-up to the new one, those after it to the new length."""

    def moved(step: int) -> int:
        if step <= warmup:
            return round(step * new_warmup / warmup) if warmup else step
        share = (step - warmup) / (length - warmup)
        return min(new_length, round(new_warmup + share * (new_length - new_warmup)))

    begin = scheduler.get('begin', 0)

    def counted(step: int) -> int:
        """Move a step that counts from the beginning of the schedule."""
        return moved(begin + step) - moved(begin)

    for key in ('T_max', 'total_steps'):
        if key in scheduler:
            scheduler[key] = counted(scheduler[key])
    if 'step_size' in scheduler:
        scheduler['step_size'] = max(1, counted(scheduler['step_size']))
    if 'milestones' in scheduler:
        scheduler['milestones'] = sorted(set(map(counted, scheduler['milestones'])))
    for key in ('begin', 'end'):
        if key in scheduler:
            scheduler[key] = moved(scheduler[key])
