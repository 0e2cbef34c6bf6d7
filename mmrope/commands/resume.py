"""Resuming under a config that is not the one of the checkpoint, or from a checkpoint that lacks something.

MMEngine takes learning rates, schedules and the other settings of the optimiser from the checkpoint, whatever the
config says now, and begins anew with what the checkpoint lacks, both without a word. Here the config counts: its
schedules are followed from the start to the iteration of the checkpoint, and the log says what has changed.
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

# The parts of a config that make a training what it is.
COMPARED = (
    'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'custom_hooks',
    'randomness',
)  # fmt: skip
# What changes no result, and the weights before the first iteration.
IGNORED = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'init_cfg')
# How far a scheduler is; all else that it holds is what it was made of.
PROGRESS = {'last_step', '_global_step', '_last_value', 'verbose'}
PARTS = {
    'optimizer': 'the state of the optimiser begins anew',
    'param_schedulers': 'the schedules of the config are followed from the start to the iteration of the checkpoint',
    'message_hub': 'logs, best score and best checkpoint begin anew',
}
Change = tuple[str, Any, Any]


def latest_whole_checkpoint(work_dir: str, template: str, folder: str) -> str | None:
    """Find the checkpoint to resume from; one that is not whole is passed over with a warning for the one before.

    Args:
        work_dir: The work dir of the training.
        template: The names of its checkpoints, with ``{}`` for the number.
        folder: Where they are.

    Returns:
        Its path, in ``folder``; nothing if there are no checkpoints.

    Raises:
        CheckpointError: If there are checkpoints, and none is whole.
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
    """Let the config count where a resumed training's checkpoint says something else, and say so in the log.

    The seed and the state of the optimiser are those of the checkpoint.

    Args:
        source: The name of the checkpoint.
    """

    priority = 'VERY_HIGH'  # before hooks that read the checkpoint, and before the run counts as started

    def __init__(self, source: str) -> None:
        self.source = source
        self.complete = CompleteCheckpoint(source)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change what MMEngine is about to resume from.

        Raises:
            CheckpointError: If there is nothing to resume from, or the optimiser is another one.
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
        if not _by_iteration(runner) and meta['iter'] != meta['epoch'] * len(runner.train_loop.dataloader):
            runner.logger.warning(
                f'{self.source} is of iteration {meta["iter"]}, which is not the end of epoch {meta["epoch"]} with '
                f'{len(runner.train_loop.dataloader)} iterations each: the training goes on with a whole epoch, number '
                f'{meta["epoch"] + 1}'
            )
        if changes:
            runner.logger.warning(
                f'The config has changed since {self.source} was written, and counts from now on, but for the seed: '
                f'{few(map(describe, changes), 8)}'
            )

    def before_train(self, runner: Runner) -> None:
        """Check that the whole model has been resumed, and that something is left to train.

        Raises:
            CheckpointError: If the checkpoint is of another model.
        """
        self.complete.check(unwrapped(runner.model))
        done, length = (runner.iter, runner.max_iters) if _by_iteration(runner) else (runner.epoch, runner.max_epochs)
        if done >= length:
            runner.logger.warning(
                f'Nothing is left to train: {self.source} is of {"iteration" if _by_iteration(runner) else "epoch"} '
                f'{done}, and train_cfg ends the training at {length}.'
            )

    def _check_optimizer(self, wrapper: OptimWrapper, checkpoint: dict[str, Any], changes: Sequence[Change]) -> None:
        if 'optimizer' not in checkpoint:
            return
        ours, theirs = (
            [len(group['params']) for group in groups]
            for groups in (wrapper.optimizer.param_groups, checkpoint['optimizer'].get('param_groups', ()))
        )
        reasons = [describe(change) for change in changes if change[0] == 'optim_wrapper.optimizer.type']
        if ours != theirs:
            reasons.append(f'groups of {_sizes(theirs)} parameters -> {_sizes(ours)}')
        if reasons:
            raise CheckpointError(
                f'{self.source}: the optimizer is another one than that of the config ({", ".join(reasons)}): set it '
                'back, or begin a training with the weights alone, by load_from without --resume'
            )


def changes_since(meta: dict[str, Any], runner: Runner) -> list[Change]:
    """List what has changed since a checkpoint was written: parts of the config and the number of processes.

    Args:
        meta: That of the checkpoint.
        runner: The runner that is to resume.
    """
    old, new = read_config(meta.get('cfg', '')), read_config(runner.cfg.pretty_text)
    changes = []
    if old:
        parts = [{key: config.get(key) for key in COMPARED} for config in (old, new)]
        changes = list(differences(*parts, IGNORED))
    processes = meta.get('processes', get_world_size())
    return [*changes, *differences(processes, get_world_size(), path='processes')]


def _is_another_schedule(runner: Runner, checkpoint: dict[str, Any], changes: Sequence[Change]) -> bool:
    """Say whether the optimiser and the schedules of the config are set up otherwise than those of the checkpoint.

    The number of images and processes has a part in them, by the length of an epoch and ``auto_scale_lr``.
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
    """Have MMEngine resume settings and schedules as if the config had counted from the start.

    Args:
        runner: Its optimiser and schedulers are new, as the config makes them.
        checkpoint: Changed in place.
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
    """Take the steps of a training, as MMEngine's hook does; a scheduler that waits for metrics takes none.

    Args:
        schedulers: In the order of the config.
        iterations: How many, a multiple of the epochs.
        epochs: How many; none in an iteration-based loop.
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


def _sizes(groups: Sequence[int]) -> str:
    return few(map(str, groups))


def _by_iteration(runner: Runner) -> bool:
    return hasattr(runner.train_loop, 'dataloader_iterator')  # as it is in MMEngine's loop and those made of it
