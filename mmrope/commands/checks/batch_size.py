"""The batch that a learning rate belongs to, and the batch of a training."""

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
        base: batch that learning rate and schedule belong to, ``auto_scale_lr.base_batch_size``.
        processes: number of processes.
        batch_size: images of a process in an iteration.
        counts: ``optim_wrapper.accumulative_counts``.
        scaled: whether the learning rate is scaled to the batch.
        iterations: length of an iteration-based training; ``None`` for one in epochs.
        epochs: length of a training in epochs.
        images: size of the data set.

    Returns:
        One line, or ``None`` if the batches agree.
    """
    total, by_epoch = processes * batch_size * counts, iterations is None
    if total == base:
        return None
    accumulated = f' x {counts} accumulated' if counts > 1 else ''
    rate = f'scaled by {total / base:.4g} from that of' if scaled else 'that of'
    length = f'{epochs} epochs are seen'
    if iterations is not None:
        seen = iterations * processes * batch_size / images
        length = f'{iterations} iterations see {seen:.4g} epochs, in place of {seen * base / total:.4g}'
    remedy = ''
    if scaled and not by_epoch:
        factor = f'{base / total:.4g}'
        remedy = f'; to see as many, multiply the iterations in train_cfg and param_scheduler by {factor}'
    elif not scaled:
        ways, where = ['--auto-scale-lr'], 'param_scheduler' if by_epoch else 'train_cfg and param_scheduler'
        if base % (processes * batch_size) == 0:
            needed = base // (processes * batch_size)
            times = f'{needed / counts:.4g} times the iterations in {where}'
            ways.insert(0, f'optim_wrapper.accumulative_counts={needed} and {times}')
        if base % (processes * counts) == 0:
            ways.insert(0, f'train_dataloader.batch_size={base // (processes * counts)}')
        remedy = f'; to train as configured, {"set" if len(ways) > 1 else "use"} {", or ".join(ways)}'
    return (
        f'the global batch is {total} ({processes} processes x {batch_size} images{accumulated}) and the learning rate '
        f'is {rate} {base} (auto_scale_lr.base_batch_size): {length}{remedy}'
    )


class ReportBatchSize(Hook):
    """Hook that logs one line where the global batch is not the one that the config's learning rate belongs to."""

    def before_train(self, runner: Runner) -> None:
        """Compare, once the number of images is known."""
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
    """Return the number of iterations that make one step of the optimiser."""
    return (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def scale_by_step(runner: Runner) -> None:
    """Make ``auto_scale_lr`` scale by the images of a step; MMEngine itself counts those of an iteration."""
    scaling, counts = getattr(runner, 'auto_scale_lr', None), accumulative_counts(runner)
    if scaling and counts > 1:
        runner.auto_scale_lr = {**scaling, 'base_batch_size': scaling['base_batch_size'] / counts}
