"""Resuming with a config that has changed since the checkpoint was written, or from an incomplete checkpoint.

MMEngine silently takes learning rates, schedules and other optimizer settings from the checkpoint, and silently resets
the parts that the checkpoint lacks. Here the config takes precedence: its schedules are followed from the start to the
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
# Settings that do not change the result, and the initial weights, which a resumed training does not use.
IGNORED = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'init_cfg')
# State of a scheduler; its other entries are arguments.
PROGRESS = {'last_step', '_global_step', '_last_value', 'verbose'}
PARTS = {
    'optimizer': 'the state of the optimizer is reset',
    'param_schedulers': 'the schedules of the config are followed from the start to the iteration of the checkpoint',
    'message_hub': 'logs, best score and best checkpoint are reset',
}
Change = tuple[str, Any, Any]


def latest_whole_checkpoint(work_dir: str, template: str, folder: str) -> str | None:
    """Return the path of the latest complete checkpoint, and log a warning for each later one.

    Args:
        work_dir: work dir of the training.
        template: names of its checkpoints, with ``{}`` for the number.
        folder: folder of the checkpoints.

    Returns:
        A path in ``folder``; ``None`` if there are no checkpoints.

    Raises:
        CheckpointError: if there are checkpoints, but none is complete.
    """
    paths = latest_checkpoints(work_dir, template, folder)
    for path in paths:
        if is_whole(path):
            return path
        print_log(f'{path} is missing or cut short: passed over for the one before it', 'current', logging.WARNING)
    if paths:
        raise CheckpointError(
            f'--resume: no checkpoint in {folder} is whole, of {len(paths)}: start without --resume, or name another '
            'with --resume CHECKPOINT'
        )
    return None


class ConfigCounts(Hook):
    """Hook that gives the config precedence over the checkpoint of a resumed training, and logs the differences.

    The seed and the state of the optimizer are those of the checkpoint.

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
            CheckpointError: if it has no iteration, or is of another optimizer.
        """
        meta = checkpoint.get('meta') or {}
        if not {'epoch', 'iter'} <= set(meta):
            raise CheckpointError(
                f'{self.source} has no iteration to resume at; to start a training from its weights, set load_from'
            )
        meta.pop('config', None)  # MMEngine would execute it
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
                f'{self.source} is of iteration {meta["iter"]}, which is not the end of epoch {meta["epoch"]} of '
                f'{length} iterations: the training continues at the start of epoch {meta["epoch"] + 1}'
            )
        if changes:
            runner.logger.warning(
                f'The config has changed since {self.source} was written, and is used except for the seed: '
                f'{few(map(describe, changes), 8)}'
            )

    def before_train(self, runner: Runner) -> None:
        """Check that the whole model was loaded, and warn if nothing is left to train.

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
                f'{self.source} is of another optimizer than the config ({", ".join(reasons)}): restore it, or start '
                'a training from the weights alone, with load_from and without --resume'
            )


def changes_since(meta: dict[str, Any], runner: Runner) -> list[Change]:
    """List the changes of the config and of the number of processes since a checkpoint was written."""
    old, new = read_config(meta.get('cfg', '')), read_config(runner.cfg.pretty_text)
    changes = []
    if old:
        before, after = ({key: config.get(key) for key in COMPARED} for config in (old, new))
        changes = list(differences(before, after, IGNORED))
    processes = meta.get('processes', get_world_size())
    return [*changes, *differences(processes, get_world_size(), path='processes')]


def _is_another_schedule(runner: Runner, checkpoint: dict[str, Any], changes: Sequence[Change]) -> bool:
    """Say whether the settings of optimizer or schedules differ from those of the checkpoint.

    They also depend on the number of images and processes, by the length of an epoch and ``auto_scale_lr``.
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
    """Make MMEngine resume optimizer settings and schedules as if the training had used the config from the start.

    Args:
        runner: with the optimizer and schedulers that the config makes.
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
    """Step schedulers as MMEngine's hook does in a training, except those that need metrics.

    Args:
        schedulers: in the order of the config.
        iterations: number of iterations, a multiple of the epochs.
        epochs: number of epochs; 0 in an iteration-based loop.
    """
    due = [scheduler for scheduler in schedulers if not getattr(scheduler, 'need_val_args', False)]
    due.sort(key=lambda scheduler: scheduler.by_epoch)
    length = iterations // epochs if epochs else iterations + 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimizer has taken no steps
        for iteration in range(1, iterations + 1):
            for scheduler in due:
                if not scheduler.by_epoch or iteration % length == 0:
                    scheduler.step()


def _by_iteration(runner: Runner) -> bool:
    return hasattr(runner.train_loop, 'dataloader_iterator')
