"""Comparison of the batch that a learning rate belongs to with the batch of a training."""

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
    """Describe a global batch that is not the one of the learning rate, and how to train as configured.

    Args:
        base: batch that learning rate and schedule belong to, ``auto_scale_lr.base_batch_size``.
        processes: number of processes.
        batch_size: images per process and iteration.
        counts: iterations per step of the optimizer, ``optim_wrapper.accumulative_counts``.
        scaled: whether the learning rate is scaled to the batch.
        iterations: length of an iteration-based training; ``None`` for one in epochs.
        epochs: length of a training in epochs.
        images: size of the data set.

    Returns:
        One line; ``None`` if the batches agree.
    """
    total = processes * batch_size * counts
    if total == base:
        return None
    accumulated = f' x {counts} accumulated' if counts > 1 else ''
    rate = f'scaled by {total / base:.4g} from that of' if scaled else 'that of'
    length, scheduled = f'{epochs} epochs are seen', 'param_scheduler'
    if iterations is not None:
        seen, scheduled = iterations * processes * batch_size / images, 'train_cfg and param_scheduler'
        length = f'{iterations} iterations see {seen:.4g} epochs, in place of {seen * base / total:.4g}'
    factor, remedy = f'{base / total:.4g}', ''
    if not scaled:
        remedy = (
            f'; to train as configured, use --auto-scale-lr, or multiply train_dataloader.batch_size by {factor}, or '
            f'optim_wrapper.accumulative_counts and the iterations in {scheduled} by {factor}'
        )
    elif iterations is not None:
        remedy = f'; to see as many, multiply the iterations in {scheduled} by {factor}'
    return (
        f'the global batch is {total} ({processes} processes x {batch_size} images{accumulated}) and the learning rate '
        f'is {rate} {base} (auto_scale_lr.base_batch_size): {length}{remedy}'
    )


class ReportBatchSize(Hook):
    """Hook that logs a warning if the global batch is not the one that the config's learning rate belongs to."""

    def before_train(self, runner: Runner) -> None:
        """Compare the batches, now that the number of images is known."""
        scaling, loop = runner.cfg.get('auto_scale_lr') or {}, runner.train_loop
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
    """Return the number of iterations per step of the optimizer."""
    return (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def scale_by_step(runner: Runner) -> None:
    """Make ``auto_scale_lr`` scale by the images per step, since MMEngine counts those per iteration."""
    scaling, counts = getattr(runner, 'auto_scale_lr', None), accumulative_counts(runner)
    if scaling and counts > 1:
        runner.auto_scale_lr = {**scaling, 'base_batch_size': scaling['base_batch_size'] / counts}
