"""A check that schedules fit the length of their training."""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner


class CheckSchedules(Hook):
    """Hook that warns about schedules that are longer than the training or end before it.

    They arise when only the length of the training is changed, or the data set is smaller.
    """

    def before_train(self, runner: Runner) -> None:
        """Log a warning for each such schedule."""
        schedulers = runner.param_schedulers or []
        by_name = schedulers if isinstance(schedulers, dict) else {'': schedulers}
        for own in by_name.values():
            for fault in schedule_faults(own, runner.max_iters, runner.max_epochs):
                runner.logger.warning(fault)


def schedule_faults(schedulers: Sequence[_ParamScheduler], iterations: int, epochs: int) -> Iterator[str]:
    """Yield a sentence for each schedule that does not fit the length of the training.

    Args:
        schedulers: of one optimizer.
        iterations: length of the training.
        epochs: length of the training; 1 in an iteration-based loop.
    """
    for index, scheduler in enumerate(schedulers):
        unit, length = ('epoch', epochs) if scheduler.by_epoch else ('iteration', iterations)
        name, end = f'param_scheduler[{index}], {type(scheduler).__name__},', _end(scheduler)
        late = [step + scheduler.begin for step in sorted(getattr(scheduler, 'milestones', ()))]
        late = [step for step in late if step > length]
        if scheduler.begin >= length:
            yield f'{name} begins at {unit} {scheduler.begin}, and the training ends at {length}: it has no effect'
        elif late:
            listed = ', '.join(map(str, late))
            yield f'{name} has milestones at {unit} {listed}, and the training ends at {length}'
        elif end is not None and end > length:
            where = 'has no end' if end >= INF else f'ends at {unit} {end}'
            value = f'{scheduler.param_name} never reaches its {"full" if _warms_up(scheduler) else "last"} value'
            yield f'{name} {where}, and the training ends at {length}: {value}'
        elif end is not None and end < length and not _warms_up(scheduler) and _is_last(scheduler, end, schedulers):
            yield (
                f'{name} ends at {unit} {end}, and the training at {length}: {scheduler.param_name} is not scheduled '
                f'for the {length - end} after it'
            )


def _end(scheduler: _ParamScheduler) -> int | None:
    """Return the step at which a schedule reaches its last value, or ``None`` if it has none."""
    for length in ('T_max', 'total_steps'):
        if hasattr(scheduler, length):
            return scheduler.begin + getattr(scheduler, length)
    if hasattr(scheduler, 'factor'):
        return scheduler.end if scheduler.end < INF else None
    return scheduler.end if hasattr(scheduler, 'total_iters') else None


def _warms_up(scheduler: _ParamScheduler) -> bool:
    rises = hasattr(scheduler, 'start_factor') and scheduler.start_factor < scheduler.end_factor
    return rises or hasattr(scheduler, 'factor')


def _is_last(scheduler: _ParamScheduler, end: int, schedulers: Sequence[_ParamScheduler]) -> bool:
    """Say whether no other schedule, by epoch or iteration, sets the same parameter after ``end``."""
    others = [other for other in schedulers if other is not scheduler and other.param_name == scheduler.param_name]
    return not any(
        other.end > end if other.by_epoch == scheduler.by_epoch else not _warms_up(other) for other in others
    )
