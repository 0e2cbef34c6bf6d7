"""Runners that fit the config and the machine, for the commands that train and test.

They serve detection, segmentation and classification; the differences between the hosts are left to the configs.
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import is_cuda_available, is_mlu_available, is_musa_available, is_npu_available
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.loading import refuse_code_in_checkpoints
from ..engine.checkpoint_hook import checkpoint_folder, last_checkpoint
from ..engine.complete_checkpoint_hook import PublishedWeights
from ..engine.seed_hook import SeedEachIteration
from ..ops import describe
from .checks.batch_size import ReportBatchSize, scale_by_step
from .checks.config import check_checkpoint, check_classes_of_checkpoint, check_data, check_optimizer
from .checks.schedules import CheckSchedules
from .cli import name_of
from .config import read_config
from .errors import CommandError, Run
from .hosts import type_name
from .resume import ConfigCounts, latest_whole_checkpoint
from .sizes import LARGEST_STRIDE
from .tta import use_tta
from .watching import drawing_switch

# Environment variables that hold the rank and the number of processes, by launcher.
RANK_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}


class RunStarted(Hook):
    """Hook that notes that everything is built and loaded, so that later errors are not blamed on the config."""

    priority = 'LOWEST'

    def __init__(self, run: Run) -> None:
        self.run = run

    def before_train(self, runner: Runner) -> None:
        """Note the start of the training, with its folder."""
        self.run.start(runner.work_dir, resumed=runner.iter > 0)

    def before_test(self, runner: Runner) -> None:
        """Note the start of the test."""
        self.run.start()


def join_launcher(launcher: str, local_rank: int = 0) -> None:
    """Check that a launcher has started this process, and tell MMEngine the rank within the machine.

    Raises:
        CommandError: if the launcher has not.
    """
    missing = [name for name in RANK_VARIABLES.get(launcher, ()) if name not in os.environ]
    if missing:
        raise CommandError(
            f'--launcher {launcher}: the environment variable {missing[0]} is not set; start with a script of tools/'
        )
    os.environ.setdefault('LOCAL_RANK', str(local_rank))


def is_first_process(cfg: Config) -> bool:
    """Say whether this is rank 0, which checks the data for all: launchers end the others when it fails."""
    variables = RANK_VARIABLES.get(cfg.get('launcher'))
    return variables is None or os.environ.get(variables[0], '0') == '0'


@contextmanager
def processes(launcher: str) -> Iterator[None]:
    """Destroy the process group once the run of a launcher has ended.

    Gloo's threads free the tensors of the last calls after these have returned, and abort the process if Python is
    shutting down by then, so they get half a second. The wait can go once ``destroy_process_group`` waits for them; in
    PyTorch 2.11 it does not.
    """
    try:
        yield
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    finally:
        if launcher != 'none' and not has_accelerator():
            time.sleep(0.5)


def read_run_config(args: argparse.Namespace) -> Config:
    """Join the launcher, and read the config of a training or a test.

    Raises:
        CommandError: as :func:`mmrope.commands.config.load_config`, or if no launcher has started this process.
    """
    join_launcher(args.launcher, args.local_rank)
    cfg = read_config(args)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', name_of(args.config))
    return cfg


def prepare_training(
    cfg: Config,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    trust_checkpoint: bool = False,
) -> list[str]:
    """Prepare a config for a training.

    Args:
        cfg: config with ``work_dir`` and ``launcher``; changed in place.
        amp: whether to train in mixed precision.
        auto_scale_lr: whether to scale the learning rate by the batch size.
        resume: a checkpoint, or ``'auto'`` for the latest in the work dir.
        trust_checkpoint: whether to load the checkpoint with Python's own pickle.

    Returns:
        Messages to log.

    Raises:
        CommandError: if the arguments, the config and the files on this machine do not fit together.
    """
    notes = []
    if amp:
        use_amp(cfg)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise CommandError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size to scale by')
        cfg.auto_scale_lr.enable = True
    if resume == 'auto' or (resume is None and cfg.get('resume') and not cfg.get('load_from')):
        resume = 'auto'
        notes += resume_from_the_latest(cfg)
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume
    check_checkpoint(cfg.get('load_from'), '--resume' if resume and cfg.resume else 'load_from')
    if trust_checkpoint:
        trust(cfg)
    check_optimizer(cfg)
    if is_first_process(cfg):
        check_data(cfg, ('train', 'val'))
    return notes


def prepare_test(
    cfg: Config,
    checkpoint: str,
    tta: bool = False,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    trust_checkpoint: bool = False,
) -> None:
    """Prepare a config for a test.

    Args:
        cfg: config of the model; changed in place.
        checkpoint: checkpoint to test.
        tta: whether to test with augmentation.
        show: whether to show the predictions.
        show_dir: folder for the drawn predictions.
        wait_time: seconds for which each prediction is shown.
        trust_checkpoint: whether to load the checkpoint with Python's own pickle.

    Raises:
        CommandError: if the arguments, the config and the files on this machine do not fit together.
    """
    check_checkpoint(checkpoint, 'CHECKPOINT')
    cfg.load_from = checkpoint
    cfg.resume = False
    if trust_checkpoint:
        trust(cfg)
    if show or show_dir:
        draw_predictions(cfg, show, show_dir, wait_time)
    if tta:
        use_tta(cfg)
    if is_first_process(cfg):
        check_data(cfg, ('test',))
        check_classes_of_checkpoint(cfg, checkpoint)


def trust(cfg: Config) -> None:
    """Let one checkpoint, the config's ``load_from``, be loaded with Python's own pickle.

    Raises:
        CommandError: if ``load_from`` names none.
    """
    if not cfg.get('load_from'):
        raise CommandError(
            '--trust-checkpoint needs the name of a checkpoint: give --resume CHECKPOINT, or set load_from'
        )
    refuse_code_in_checkpoints(trusted=cfg.load_from)


def resume_from_the_latest(cfg: Config) -> list[str]:
    """Make a config resume from the latest whole checkpoint of its work dir, or start as usual if there is none.

    Returns:
        Messages to log: how the training starts if there is no checkpoint.

    Raises:
        CheckpointError: if there are checkpoints but none is whole.
    """
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folder = checkpoint_folder(cfg.work_dir, saving.get('out_dir'))
    if '://' in folder or (saving.get('backend_args') or {}).get('backend', 'local') != 'local':
        path = last_checkpoint(cfg.work_dir, folder)  # not on this machine
    else:
        template = saving.get('filename_tmpl') or ('epoch_{}.pth' if saving.get('by_epoch', True) else 'iter_{}.pth')
        path = latest_whole_checkpoint(cfg.work_dir, template, folder)
    cfg.resume = path is not None
    cfg.load_from = path or cfg.get('load_from')
    if cfg.resume:
        return []
    weights = f'the weights of load_from, {cfg.load_from}' if cfg.load_from else 'initial weights'
    return [f'--resume: {cfg.work_dir} has no checkpoint yet; the training starts at iteration 0 with {weights}.']


def use_amp(cfg: Config) -> None:
    """Train in mixed precision; a config that does so already keeps its settings.

    Raises:
        CommandError: if the config has no optimiser wrapper, or one that is neither ``OptimWrapper`` nor
            ``AmpOptimWrapper``.
    """
    if not cfg.get('optim_wrapper'):
        raise CommandError('--amp: the config has no optim_wrapper')
    name = type_name(cfg.optim_wrapper, 'OptimWrapper')
    if name == 'OptimWrapper':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    elif name != 'AmpOptimWrapper':
        raise CommandError(f'--amp needs an optim_wrapper of type OptimWrapper or AmpOptimWrapper, got {name}')


def draw_predictions(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Show the predictions, or save them in a folder, with the options of the config's visualization hook.

    Raises:
        CommandError: if the config has no such hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise CommandError('--show and --show-dir: the config has no default_hooks.visualization')
    shown = dict(show=show, wait_time=wait_time)
    if show_dir:
        kept = {key: hook[key] for key in ('score_thr', 'backend_args') if key in hook}
        cfg.default_hooks.visualization = dict(type='mmrope.DrawPredictionsHook', folder=show_dir, **kept, **shown)
    else:
        # all images: MMSegmentation's default is one in 50
        hook.update({drawing_switch(hook): True, 'interval': 1, **shown})


def build_runner(cfg: Config, run: Run, training: bool, notes: Sequence[str] = ()) -> Runner:
    """Build a runner that works on this machine, with or without an accelerator.

    Args:
        cfg: after :func:`prepare_training` or :func:`prepare_test`.
        run: notes when the run starts.
        training: whether the optimiser will be used.
        notes: messages to log.
    """
    notes = list(notes)
    if training and not has_accelerator():
        notes += use_full_precision(cfg)
    if cfg.launcher != 'none' and not has_accelerator():
        join_with_gloo(cfg)
        if use_local_batch_norm(cfg._cfg_dict) and training:  # a test normalises by the running statistics
            notes.append(
                'SyncBN needs an accelerator: BN takes its place, and each process normalises by its own batch.'
            )
    if not images_have_one_size(cfg, training):
        attend_without_plans()
    if training:
        use_whole_checkpoints(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(RunStarted(run))
    if training:
        runner.register_hook(SeedEachIteration())
        runner.register_hook(CheckSchedules())
        runner.register_hook(ReportBatchSize())
        scale_by_step(runner)
    elif not is_main_process():
        # It writes the metrics of a test as JSON, in every process into one file, which two at once spoil.
        runner.hooks[:] = [hook for hook in runner.hooks if not isinstance(hook, LoggerHook)]
    if training and cfg.get('resume'):
        runner.register_hook(ConfigCounts(cfg.load_from))
    elif training and cfg.get('load_from'):
        runner.register_hook(PublishedWeights(cfg.load_from))
    runner.logger.info(describe())
    for note in notes:
        runner.logger.warning(note)
    return runner


def images_have_one_size(cfg: Config, training: bool) -> bool:
    """Say whether the data preprocessor makes all batches one size: a training crop, or a square to pad to."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    crops = training and preprocessor.get('size') is not None
    return crops or preprocessor.get('pad_size_divisor', 1) > LARGEST_STRIDE


def attend_without_plans() -> None:
    """Switch off cuDNN's attention, which PyTorch prefers on an H100 and later, in this process.

    cuDNN takes tenths of a second to plan for each new shape of queries, and images of many sizes make many shapes.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def use_whole_checkpoints(cfg: Config) -> None:
    """Replace MMEngine's ``CheckpointHook``, but no subclass of it."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    if hook and hook.get('type') in ('CheckpointHook', CheckpointHook):
        hook['type'] = 'mmrope.WholeCheckpointHook'


def has_accelerator() -> bool:
    """Say whether there is a device that MMEngine supports for mixed precision and process groups."""
    return is_cuda_available() or is_npu_available() or is_mlu_available() or is_musa_available()


def use_full_precision(cfg: Config) -> list[str]:
    """Replace ``AmpOptimWrapper``, which needs an accelerator; return messages to log."""
    wrapper = cfg.get('optim_wrapper') or {}
    if type_name(wrapper) != 'AmpOptimWrapper':
        return []
    for key in ('dtype', 'loss_scale', 'use_fsdp'):
        wrapper.pop(key, None)
    wrapper['type'] = 'OptimWrapper'
    return [
        'AmpOptimWrapper needs an accelerator: OptimWrapper takes its place, and the training is in full precision.'
    ]


def join_with_gloo(cfg: Config) -> None:
    """Create the process group of torchrun's processes, since MMEngine would bind each of them to a GPU.

    Raises:
        CommandError: if another launcher has started them.
    """
    if cfg.launcher != 'pytorch':
        raise CommandError(f'--launcher {cfg.launcher} needs a GPU; without one, use torchrun and --launcher pytorch')
    if not torch.distributed.is_initialized():  # by an earlier runner of this process
        torch.distributed.init_process_group('gloo')
    wrapper = {'type': 'MMDistributedDataParallel', 'broadcast_buffers': False}  # MMEngine's own, without `device_ids`
    wrapper['find_unused_parameters'] = cfg.get('find_unused_parameters', False)
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}


def use_local_batch_norm(node: Any) -> bool:
    """Replace SyncBN, which needs an accelerator, by BN below a node of a config; return whether there was any."""
    found = isinstance(node, Mapping) and type_name(node) in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')
    if found:
        node['type'] = 'BN'
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    return any([use_local_batch_norm(child) for child in children]) or found
