"""The batch that a learning rate belongs to, and the one that a training has."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner


def describe_mismatch(
    base: int,
    processes: int,
    batch_size: int,
    counts: int = 1,
    scaled: bool = False,
    iterations: int | None = None,
    epochs: int = 1,
    images: int = 1,
) -> str | None:
    """Describe a global batch other than the one that the learning rate belongs to, and how to train as configured.

    An iteration is one batch of each process; ``counts`` iterations make one step of the optimiser.

    Args:
        base: The batch that learning rate and schedule belong to, ``auto_scale_lr.base_batch_size``.
        processes: Number of processes.
        batch_size: Images of a process in an iteration.
        counts: ``optim_wrapper.accumulative_counts``.
        scaled: Whether the learning rate is scaled to the batch.
        iterations: Length of an iteration-based training; ``None`` for one in epochs.
        epochs: Length of a training in epochs.
        images: Images of the data set.

    Returns:
        One line, or ``None`` if the batches agree.
    """
    total = processes * batch_size * counts
    if total == base:
        return None
    accumulated = f' x {counts} accumulated' if counts > 1 else ''
    rate = f'scaled by {total / base:.4g} from that of' if scaled else 'that of'
    if iterations is None:
        length = f'{epochs} epochs are seen'
    else:
        seen = iterations * processes * batch_size / images
        length = f'{iterations} iterations see {seen:.4g} epochs, in place of {seen * base / total:.4g}'
    return (
        f'the global batch is {total} ({processes} processes x {batch_size} images{accumulated}) and the learning rate '
        f'is {rate} {base} (auto_scale_lr.base_batch_size): {length}'
        f'{_remedy(base, processes, batch_size, counts, scaled, iterations is None)}'
    )


def _remedy(base: int, processes: int, batch_size: int, counts: int, scaled: bool, by_epoch: bool) -> str:
    """Return the end of the sentence that says what to set; nothing where the training is as configured."""
    if scaled:
        factor = f'{base / (processes * batch_size * counts):.4g}'
        return (
            ''
            if by_epoch
            else f'; to see as many, multiply the iterations in train_cfg and param_scheduler by {factor}'
        )
    ways = []
    if base % (processes * counts) == 0:
        ways.append(f'train_dataloader.batch_size={base // (processes * counts)}')
    if base % (processes * batch_size) == 0:
        needed = base // (processes * batch_size)
        where = 'param_scheduler' if by_epoch else 'train_cfg and param_scheduler'
        ways.append(
            f'optim_wrapper.accumulative_counts={needed} and {needed / counts:.4g} times the iterations in {where}'
        )
    ways.append('--auto-scale-lr')
    return f'; to train as configured, set {", or ".join(ways[:-1])}' if len(ways) > 1 else f'; use {ways[0]}'


class ReportBatchSize(Hook):
    """Log one line where the global batch is not the one that the config's learning rate belongs to."""

    def before_train(self, runner: Runner) -> None:
        """Compare, once the data set tells how many images it has."""
        scaling = runner.cfg.get('auto_scale_lr') or {}
        loop = runner.train_loop
        batch_size = getattr(loop.dataloader.batch_sampler, 'batch_size', None)
        if 'base_batch_size' not in scaling or batch_size is None or not hasattr(loop.dataloader.dataset, '__len__'):
            return
        note = describe_mismatch(
            scaling['base_batch_size'],
            get_world_size(),
            batch_size,
            accumulative_counts(runner),
            scaling.get('enable', False),
            loop.max_iters if isinstance(loop, IterBasedTrainLoop) else None,
            loop.max_epochs,
            len(loop.dataloader.dataset),
        )
        if note:
            runner.logger.warning(note)


def accumulative_counts(runner: Runner) -> int:
    """Read how many iterations make one step of the optimiser."""
    return (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def scale_by_step(runner: Runner) -> None:
    """Have ``auto_scale_lr`` scale by the images of a step; MMEngine itself counts those of an iteration."""
    scaling, counts = getattr(runner, 'auto_scale_lr', None), accumulative_counts(runner)
    if scaling and counts > 1:
        runner.auto_scale_lr = {**scaling, 'base_batch_size': scaling['base_batch_size'] / counts}
