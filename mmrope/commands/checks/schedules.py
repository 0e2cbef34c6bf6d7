"""Schedules that cannot work in the training they are for, found before the first iteration."""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner


class CheckSchedules(Hook):
    """Warn of schedules that are longer than the training, or end before it.

    Such are left where somebody changes the length of a training alone, or has fewer images.
    """

    def before_train(self, runner: Runner) -> None:
        """Log a warning for each."""
        schedulers = runner.param_schedulers or []
        by_name = schedulers if isinstance(schedulers, dict) else {'': schedulers}
        for own in by_name.values():
            for fault in schedule_faults(own, runner.max_iters, runner.max_epochs):
                runner.logger.warning(fault)


def schedule_faults(schedulers: Sequence[_ParamScheduler], iterations: int, epochs: int) -> Iterator[str]:
    """Yield a sentence for each schedule that does not fit the length of the training.

    Args:
        schedulers: Those of one optimiser.
        iterations: How many the training has.
        epochs: How many it has; one in an iteration-based loop.
    """
    for index, scheduler in enumerate(schedulers):
        unit, length = ('epoch', epochs) if scheduler.by_epoch else ('iteration', iterations)
        name, end = f'param_scheduler[{index}], {type(scheduler).__name__},', _end(scheduler)
        if scheduler.begin >= length:
            yield f'{name} begins at {unit} {scheduler.begin}, and the training ends at {length}: it has no effect'
        elif hasattr(scheduler, 'milestones'):
            late = [step + scheduler.begin for step in sorted(scheduler.milestones)]
            late = [step for step in late if step > length]
            if late:
                yield f'{name} has milestones at {unit} {_listed(late)}, and the training ends at {length}'
        elif end is not None and end > length:
            where = 'has no end' if end >= INF else f'ends at {unit} {end}'
            yield f'{name} {where}, and the training ends at {length}: {_never(scheduler)}'
        elif end is not None and end < length and _is_last(scheduler, schedulers) and not _warms_up(scheduler):
            yield (
                f'{name} ends at {unit} {end}, and the training at {length}: {scheduler.param_name} is not scheduled '
                f'for the {length - end} after it'
            )


def _end(scheduler: _ParamScheduler) -> int | None:
    """Return the step at which a schedule has come to its last value, if it comes to one."""
    if hasattr(scheduler, 'T_max'):
        return scheduler.begin + scheduler.T_max
    if hasattr(scheduler, 'total_steps'):
        return scheduler.begin + scheduler.total_steps
    goes_to_its_end = hasattr(scheduler, 'total_iters') and not hasattr(scheduler, 'factor')
    return scheduler.end if goes_to_its_end or (hasattr(scheduler, 'factor') and scheduler.end < INF) else None


def _warms_up(scheduler: _ParamScheduler) -> bool:
    if hasattr(scheduler, 'factor'):
        return True
    return hasattr(scheduler, 'start_factor') and scheduler.start_factor < scheduler.end_factor


def _never(scheduler: _ParamScheduler) -> str:
    value = 'full' if _warms_up(scheduler) else 'last'
    return f'{scheduler.param_name} never comes to its {value} value'


def _is_last(scheduler: _ParamScheduler, schedulers: Sequence[_ParamScheduler]) -> bool:
    """Say whether nothing goes on with the same setting after a schedule, by whatever unit it counts."""
    others = [other for other in schedulers if other is not scheduler and other.param_name == scheduler.param_name]
    return not any(
        other.by_epoch != scheduler.by_epoch
        and not _warms_up(other)
        or other.by_epoch == scheduler.by_epoch
        and other.end > _end(scheduler)
        for other in others
    )


def _listed(steps: Sequence[int]) -> str:
    return ', '.join(map(str, steps))
