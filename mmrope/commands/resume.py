"""Resuming under another config than that of the checkpoint, or from a checkpoint that lacks a part.

MMEngine takes learning rates, schedules and the other settings of the optimiser from the checkpoint, and begins anew
with the parts that it lacks, both in silence. Here the config counts: its schedules are followed from the start to the
iteration of the checkpoint, and the log lists the changes.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import Runner

from ..checkpoints.files import is_whole
from ..checkpoints.sources import CheckpointError
from ..engine.checkpoint_hook import latest_checkpoints
from ..engine.complete_checkpoint_hook import CompleteCheckpoint, unwrapped
from ..text import few
from .config_text import describe, differences, read_config

# Parts of a config that the result of a training depends on.
COMPARED = (
    'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'custom_hooks',
    'randomness',
)  # fmt: skip
# Settings that change no result, and the first weights, which a resumed training does not use.
IGNORED = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'init_cfg')
# State of a scheduler; the rest are its arguments.
PROGRESS = {'last_step', '_global_step', '_last_value', 'verbose'}
PARTS = {
    'optimizer': 'the state of the optimiser begins anew',
    'param_schedulers': 'the schedules of the config are followed from the start to the iteration of the checkpoint',
    'message_hub': 'logs, best score and best checkpoint begin anew',
}
Change = tuple[str, Any, Any]


def latest_whole_checkpoint(work_dir: str, template: str, folder: str) -> str | None:
    """Find the checkpoint to resume from, the latest that is whole; log a warning for each later one.

    Args:
        work_dir: work dir of the training.
        template: names of its checkpoints, with ``{}`` for the number.
        folder: of the checkpoints.

    Returns:
        Its path, in ``folder``; ``None`` if there are no checkpoints.

    Raises:
        CheckpointError: if there are checkpoints, and none is whole.
    """
    paths = latest_checkpoints(work_dir, template, folder)
    for path in paths:
        if is_whole(path):
            return path
        print_log(f'{path} is missing or cut short: passed over for the one before', 'current', logging.WARNING)
    if paths:
        raise CheckpointError(
            f'--resume: no checkpoint in {folder} is whole, of {len(paths)}: start without it, or name the one to '
            'resume from by --resume CHECKPOINT'
        )
    return None


class ConfigCounts(Hook):
    """Hook by which the config counts where the checkpoint of a resumed training differs, with a line in the log.

    The seed and the state of the optimiser are those of the checkpoint.

    Args:
        source: name of the checkpoint.
    """

    priority = 'VERY_HIGH'  # before hooks that read the checkpoint, and before the run counts as started

    def __init__(self, source: str) -> None:
        self.source = source
        self.complete = CompleteCheckpoint(source)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change the checkpoint that MMEngine is about to resume from.

        Raises:
            CheckpointError: if it has no iteration, or the optimiser is another one.
        """
        meta = checkpoint.get('meta') or {}
        if not {'epoch', 'iter'} <= set(meta):
            raise CheckpointError(
                f'{self.source} says no iteration to resume at: to begin a training with its weights, set load_from'
            )
        meta.pop('config', None)  # a text that MMEngine would run
        self.complete.note(unwrapped(runner.model), checkpoint)
        missing = [part for part in PARTS if part not in checkpoint]
        for part in missing:
            runner.logger.warning(f'{self.source} has no {part}: {PARTS[part]}')
        checkpoint.setdefault('message_hub', {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}})
        changes = changes_since(meta, runner)
        if isinstance(runner.optim_wrapper, OptimWrapper):
            self._check_optimizer(runner.optim_wrapper, checkpoint, changes)
            if {'optimizer', 'param_schedulers'} & {*missing} or _is_another_schedule(runner, checkpoint, changes):
                follow_config(runner, checkpoint)
        length = 0 if _by_iteration(runner) else len(runner.train_loop.dataloader)
        if length and meta['iter'] != meta['epoch'] * length:
            runner.logger.warning(
                f'{self.source} is of iteration {meta["iter"]}, which is not the end of epoch {meta["epoch"]} with '
                f'{length} iterations each: the training goes on with a whole epoch, number {meta["epoch"] + 1}'
            )
        if changes:
            runner.logger.warning(
                f'The config has changed since {self.source} was written, and counts from now on, but for the seed: '
                f'{few(map(describe, changes), 8)}'
            )

    def before_train(self, runner: Runner) -> None:
        """Check that the whole model has been resumed, and warn if nothing is left to train.

        Raises:
            CheckpointError: if the checkpoint is of another model.
        """
        self.complete.check(unwrapped(runner.model))
        unit, done, length = 'epoch', runner.epoch, runner.max_epochs
        if _by_iteration(runner):
            unit, done, length = 'iteration', runner.iter, runner.max_iters
        if done >= length:
            runner.logger.warning(
                f'Nothing is left to train: {self.source} is of {unit} {done}, and train_cfg ends the training at '
                f'{length}.'
            )

    def _check_optimizer(self, wrapper: OptimWrapper, checkpoint: dict[str, Any], changes: Sequence[Change]) -> None:
        if 'optimizer' not in checkpoint:
            return
        groups = wrapper.optimizer.param_groups, checkpoint['optimizer'].get('param_groups', ())
        ours, theirs = ([str(len(group['params'])) for group in part] for part in groups)
        reasons = [describe(change) for change in changes if change[0] == 'optim_wrapper.optimizer.type']
        if ours != theirs:
            reasons.append(f'groups of {few(theirs)} parameters -> {few(ours)}')
        if reasons:
            raise CheckpointError(
                f'{self.source}: the optimizer is another one than that of the config ({", ".join(reasons)}): set it '
                'back, or begin a training with the weights alone, by load_from without --resume'
            )


def changes_since(meta: dict[str, Any], runner: Runner) -> list[Change]:
    """List the changes since a checkpoint was written: of the config and of the number of processes.

    Args:
        meta: of the checkpoint.
        runner: to resume.
    """
    old, new = read_config(meta.get('cfg', '')), read_config(runner.cfg.pretty_text)
    changes = []
    if old:
        before, after = ({key: config.get(key) for key in COMPARED} for config in (old, new))
        changes = list(differences(before, after, IGNORED))
    processes = meta.get('processes', get_world_size())
    return [*changes, *differences(processes, get_world_size(), path='processes')]


def _is_another_schedule(runner: Runner, checkpoint: dict[str, Any], changes: Sequence[Change]) -> bool:
    """Say whether optimiser or schedules of the config differ from those of the checkpoint in their settings.

    These depend on the number of images and processes too, by the length of an epoch and ``auto_scale_lr``.
    """
    if any(path.partition('.')[0] in ('optim_wrapper', 'param_scheduler') for path, *_ in changes):
        return True
    ours, theirs = runner.param_schedulers or [], checkpoint['param_schedulers']
    return len(ours) != len(theirs) or any(
        value != state[key]
        for scheduler, state in zip(ours, theirs, strict=True)
        for key, value in scheduler.state_dict().items()
        if key in state and key not in PROGRESS
    )


def follow_config(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Make MMEngine resume settings and schedules as if the config had counted from the start.

    Args:
        runner: with a new optimiser and new schedulers, as the config makes them.
        checkpoint: changed in place.
    """
    schedulers, meta = runner.param_schedulers or [], checkpoint['meta']
    if _by_iteration(runner):
        advance(schedulers, meta['iter'])
    else:
        advance(schedulers, meta['epoch'] * len(runner.train_loop.dataloader), meta['epoch'])
    checkpoint.pop('param_schedulers', None)
    if 'optimizer' in checkpoint:
        fresh = runner.optim_wrapper.state_dict()
        for group, ours in zip(checkpoint['optimizer']['param_groups'], fresh['param_groups'], strict=True):
            group.update({key: value for key, value in ours.items() if key != 'params'})
        if 'base_param_settings' in fresh:
            checkpoint['optimizer']['base_param_settings'] = fresh['base_param_settings']


def advance(schedulers: Sequence[_ParamScheduler], iterations: int, epochs: int = 0) -> None:
    """Step schedulers as MMEngine's hook does in a training, except those that wait for metrics.

    Args:
        schedulers: in the order of the config.
        iterations: of the training, a multiple of the epochs.
        epochs: of the training; 0 in an iteration-based loop.
    """
    schedulers = [scheduler for scheduler in schedulers if not getattr(scheduler, 'need_val_args', False)]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    length = iterations // epochs if epochs else iterations + 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimiser has taken no steps
        for iteration in range(1, iterations + 1):
            for scheduler in by_iteration + (by_epoch if iteration % length == 0 else []):
                scheduler.step()


def _by_iteration(runner: Runner) -> bool:
    return hasattr(runner.train_loop, 'dataloader_iterator')  # of MMEngine's loop and its subclasses
