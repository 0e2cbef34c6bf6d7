"""What ``tools/train.py`` and ``tools/test.py`` share: from arguments to a runner that fits the machine.

The tools serve detection, segmentation and classification configs alike; what differs between the hosts comes from the
config.
"""

import argparse
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from glob import glob
from typing import Any, NoReturn

import torch
from mmengine.config import Config, DictAction
from mmengine.device import is_cuda_available, is_mlu_available, is_musa_available, is_npu_available
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.loading import refuse_code_in_checkpoints
from ..checkpoints.sources import CheckpointError
from ..engine.checkpoint_hook import checkpoint_folder, last_checkpoint
from ..engine.numbers import NonFiniteError
from ..engine.seed_hook import SeedEachIteration
from .checks.batch_size import ReportBatchSize, scale_by_step
from .checks.config import (
    LaunchError,
    check_checkpoint,
    check_classes_of_checkpoint,
    check_data,
    check_keys,
    check_optimizer,
    check_options,
    did_you_mean,
    set_data_root,
    suggest_type,
)
from .checks.schedules import CheckSchedules
from .hosts import leave_out_multimodal_models
from .resume import ConfigCounts, latest_whole_checkpoint
from .tta import use_tta

# Where each launcher says the rank, the number of processes and the rank within the machine.
RANK_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
# Seconds in which the launcher ends the other ranks after rank 0 has reported an error and left.
GRACE = 30
LONGEST_MESSAGE = 600
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ToolParser(argparse.ArgumentParser):
    """A parser of which only one process of a launcher speaks."""

    def error(self, message: str) -> NoReturn:
        """Leave with the usage, the message and exit code 2."""
        _let_rank_0_speak()
        super().error(message)


class OptionsAction(DictAction):
    """MMEngine's ``--cfg-options``, with a usage error for what is not ``key=value``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for value in values:
            if not value.partition('=')[0] or '=' not in value:
                parser.error(f'{option_string} takes key=value, and {value!r} is not')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string}: {error}')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that both tools have."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument('--data-root', help='folder of the data set, in place of the data_root of the config')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help='override parts of the config: a.b.0.c=1, a="[1,2]", a="[(1,2),(3,4)]"; no white space inside a value',
    )
    parser.add_argument('--launcher', choices=['none', *RANK_VARIABLES], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load the checkpoint with all that it holds, which may run code: only for an old file of your own',
    )
    parser.add_argument('--traceback', action='store_true', help='show the frames of an error, not only its message')


class RunStarted(Hook):
    """Knows whether everything is built and loaded, so that an error from now on is not the config's."""

    priority = 'LOWEST'
    started = False
    args = argparse.Namespace()
    work_dir: str | None = None
    written: int | None = None  # when an earlier training in the work dir wrote its last checkpoint

    def before_train(self, runner: Runner) -> None:
        self.started, self.work_dir = True, runner.work_dir
        self.written = None if runner.iter else _written(self.work_dir)

    def before_test(self, runner: Runner) -> None:
        self.started = True


@contextmanager
def errors_in_one_sentence(tool: str, args: argparse.Namespace) -> Iterator[RunStarted]:
    """Leave with one sentence on stderr and exit code 1 when something fails before the run has started.

    So it does later on when the disk is full or a training's losses are not finite, and with exit code 130 on Ctrl-C.

    Args:
        tool: The name that the sentence begins with.
        args: The arguments of the tool; with ``--traceback`` an error passes through.

    Yields:
        The hook to register on the runner; once it has seen the run start, errors pass through.
    """
    run = RunStarted()
    run.args = args
    try:
        yield run
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except (KeyboardInterrupt, Exception) as error:
        interrupted = _was_interrupted(error)
        full = isinstance(error, OSError) and error.errno in DISK_IS_FULL
        foreseen = interrupted or full or isinstance(error, NonFiniteError)
        if args.traceback or (run.started and not foreseen):
            raise
        _let_rank_0_speak()
        if interrupted:
            sys.stderr.write(f'{tool}: interrupted{_advice(run)}\n')
            sys.exit(130)
        sys.stderr.write(f'{tool}: error: {sentence(error)}{_advice(run) if full else ""}\n')
        sys.exit(1)
    finally:
        if args.launcher != 'none' and not has_accelerator():
            _let_gloo_finish()


def _was_interrupted(error: BaseException | None) -> bool:
    """Say whether Ctrl-C was behind it: workers that it ends, too, become an error while it is handled."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _advice(run: RunStarted) -> str:
    """Say what becomes of a training that ends early; nothing for other tools."""
    if not hasattr(run.args, 'resume'):
        return ''
    if run.work_dir is None:
        return ' before the training began'
    if _written(run.work_dir) not in (None, run.written):
        return '; the checkpoints in the work dir are whole: go on with --resume'
    return '; this training has no checkpoint yet: the same command begins it again'


def _written(work_dir: str) -> int | None:
    """Say when the last checkpoint of a work dir was written, if one was."""
    note = os.path.join(work_dir, 'last_checkpoint')  # follows each checkpoint
    return os.stat(note).st_mtime_ns if os.path.isfile(note) else None


def _let_gloo_finish() -> None:
    """Wait for gloo's threads to drop the tensors of the last calls.

    They do so after the call has returned, and abort the process if Python is shutting down by then. May go with a
    PyTorch whose ``destroy_process_group`` waits for them; 2.11 does not.
    """
    time.sleep(0.5)


def _let_rank_0_speak() -> None:
    """Give the launcher time to end this process if rank 0 fails too; if it does not, the error is this rank's own."""
    ranks = [os.environ[variables[0]] for variables in RANK_VARIABLES.values() if variables[0] in os.environ]
    if ranks and int(ranks[0]) != 0:
        time.sleep(GRACE)


def sentence(error: Exception) -> str:
    """Say an error in one line; one that is not of this package comes with its class, since its text may need it."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    text = ' '.join(text.partition('. Please check whether the value of')[0].split())
    if len(text) > LONGEST_MESSAGE:
        text = f'{text[:LONGEST_MESSAGE]} ...'
    text += suggest_type(text)
    if isinstance(error, (LaunchError, CheckpointError, NonFiniteError)):
        return text
    return f'{type(error).__name__}: {text} (--traceback shows where)'


def prepare_training(args: argparse.Namespace) -> Config:
    """Make the config of a training run from the arguments of ``tools/train.py``.

    Raises:
        LaunchError: If the arguments, the config and the files on this machine do not go together.
    """
    cfg = load_config(args)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise LaunchError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size to scale by')
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto' or (args.resume is None and cfg.get('resume') and not cfg.get('load_from')):
        args.resume = 'auto'
        resume_from_the_latest(cfg)
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume
    check_checkpoint(cfg.get('load_from'), '--resume' if args.resume and cfg.resume else 'load_from')
    if args.trust_checkpoint:
        trust_checkpoint(cfg)
    check_optimizer(cfg)
    check_data(cfg, ('train', 'val'))
    return cfg


def prepare_test(args: argparse.Namespace) -> Config:
    """Make the config of a test run from the arguments of ``tools/test.py``.

    Raises:
        LaunchError: If the arguments, the config and the files on this machine do not go together.
    """
    cfg = load_config(args)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise LaunchError(f'--out: predictions go to a file that ends in .pkl or .pickle, not {args.out}')
    check_checkpoint(args.checkpoint, 'CHECKPOINT')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.trust_checkpoint:
        trust_checkpoint(cfg)
    if args.show or args.show_dir:
        draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        use_tta(cfg)
    check_data(cfg, ('test',))
    check_classes_of_checkpoint(cfg, args.checkpoint)
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply what both tools take: options, data root, launcher and work dir.

    Raises:
        LaunchError: If there is no such config, an option does not fit it, or no launcher has started this process.
    """
    if not os.path.isfile(args.config):
        siblings = glob(os.path.join(os.path.dirname(args.config), '*.py'))
        raise LaunchError(f'there is no config {args.config}{did_you_mean(args.config, siblings)}')
    missing = [name for name in RANK_VARIABLES.get(args.launcher, ())[:2] if name not in os.environ]
    if missing:
        raise LaunchError(f'--launcher {args.launcher}: {missing[0]} is not set; see the scripts beside this tool')
    refuse_code_in_checkpoints()
    leave_out_multimodal_models()
    try:
        cfg = Config.fromfile(args.config)
    except Exception as error:
        raise LaunchError(f'{args.config} cannot be read as a config: {type(error).__name__}: {error}') from error
    check_keys(cfg)
    if args.cfg_options:
        check_options(cfg, args.cfg_options)
        cfg.merge_from_dict(args.cfg_options)
    if args.data_root is not None:
        set_data_root(cfg, args.data_root)
    cfg.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    name = os.path.splitext(os.path.basename(args.config))[0]
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', name)
    return cfg


def trust_checkpoint(cfg: Config) -> None:
    """Let the one checkpoint that ``load_from`` names be loaded with Python's own pickle.

    Raises:
        LaunchError: If it names none.
    """
    if not cfg.get('load_from'):
        raise LaunchError('--trust-checkpoint wants the file by its name: --resume CHECKPOINT, or load_from')
    refuse_code_in_checkpoints(trusted=cfg.load_from)


def resume_from_the_latest(cfg: Config) -> None:
    """Set a config to resume from the latest whole checkpoint of its work dir, or to begin as it says without one.

    Raises:
        CheckpointError: If there are checkpoints, and none is whole.
    """
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folder = checkpoint_folder(cfg.work_dir, saving.get('out_dir'))
    if '://' in folder or (saving.get('backend_args') or {}).get('backend', 'local') != 'local':
        path = last_checkpoint(cfg.work_dir, folder)  # not of this machine
    else:
        template = saving.get('filename_tmpl') or ('epoch_{}.pth' if saving.get('by_epoch', True) else 'iter_{}.pth')
        path = latest_whole_checkpoint(cfg.work_dir, template, folder)
    cfg.resume = path is not None
    cfg.load_from = path or cfg.get('load_from')


def use_amp(cfg: Config) -> None:
    """Train in mixed precision, keeping the settings of a config that does already.

    Raises:
        LaunchError: If the config's optimiser wrapper is neither ``OptimWrapper`` nor ``AmpOptimWrapper``.
    """
    name = _type_name(cfg.optim_wrapper, 'OptimWrapper')
    if name == 'OptimWrapper':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    elif name != 'AmpOptimWrapper':
        raise LaunchError(f'--amp works with the optimizer wrapper OptimWrapper, and the config has {name}')


def draw_predictions(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Show the predictions, or save them in a folder, with the options of the config's own hook for that.

    Raises:
        LaunchError: If the config has no such hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise LaunchError('--show and --show-dir: the config has no default_hooks.visualization to draw with')
    shown = dict(show=show, wait_time=wait_time)
    if show_dir:
        kept = {key: hook[key] for key in ('score_thr', 'backend_args') if key in hook}
        cfg.default_hooks.visualization = dict(type='mmrope.DrawPredictionsHook', folder=show_dir, **kept, **shown)
    else:
        switch = 'enable' if _type_name(hook) == 'VisualizationHook' else 'draw'  # the former is MMPreTrain's
        hook.update({switch: True, 'interval': 1, **shown})  # all images: MMSegmentation's default is one in 50


def build_runner(cfg: Config, run: RunStarted, training: bool) -> Runner:
    """Build the runner, on a machine without an accelerator one that works there.

    Args:
        cfg: From ``prepare_training`` or ``prepare_test``.
        run: The hook that is to know when the run starts.
        training: Whether the optimiser will be used.
    """
    notes = []
    if not has_accelerator():
        if cfg.launcher != 'none':
            use_cpu_processes(cfg)
        replaced = use_local_batch_norm(cfg)
        if training:  # what a test normalises by was learned: nothing to note there
            notes = [*use_full_precision(cfg), *replaced]
    if not images_have_one_size(cfg, training):
        attend_without_plans()
    if training:
        use_whole_checkpoints(cfg)
        notes += nothing_to_resume(cfg, run)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(run)
    if training:
        runner.register_hook(SeedEachIteration())
        runner.register_hook(CheckSchedules())
        runner.register_hook(ReportBatchSize())
        scale_by_step(runner)
    if training and cfg.get('resume'):
        runner.register_hook(ConfigCounts(cfg.load_from))
    for note in notes:
        runner.logger.warning(note)
    return runner


def images_have_one_size(cfg: Config, training: bool) -> bool:
    """Say whether the data preprocessor makes all batches of one size: a training crop, or a square to pad to."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return (training and preprocessor.get('size') is not None) or preprocessor.get('pad_size_divisor', 1) >= 512


def attend_without_plans() -> None:
    """Keep PyTorch from cuDNN's attention, which it prefers on an H100 and later, in this process.

    cuDNN plans for each new shape of queries, for tenths of a second, and images of many sizes make many shapes.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def nothing_to_resume(cfg: Config, run: RunStarted) -> list[str]:
    """Say how a training begins that was to be resumed and has no checkpoint; return what to log about it."""
    if getattr(run.args, 'resume', None) != 'auto' or cfg.get('resume'):
        return []
    weights = f'the weights of load_from, {cfg.load_from}' if cfg.get('load_from') else 'its first weights'
    return [f'--resume: {cfg.work_dir} has no checkpoint yet: the training begins as its config says, with {weights}.']


def use_whole_checkpoints(cfg: Config) -> None:
    """Replace MMEngine's ``CheckpointHook``, but none that a project has made of it."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    if hook and hook.get('type') in ('CheckpointHook', CheckpointHook):
        hook['type'] = 'mmrope.WholeCheckpointHook'


def has_accelerator() -> bool:
    """Say whether there is a device that MMEngine's mixed precision and process groups know."""
    return is_cuda_available() or is_npu_available() or is_mlu_available() or is_musa_available()


def use_full_precision(cfg: Config) -> list[str]:
    """Replace ``AmpOptimWrapper``, which refuses to work without an accelerator; return what to log about it."""
    wrapper = cfg.get('optim_wrapper') or {}
    if _type_name(wrapper) != 'AmpOptimWrapper':
        return []
    for key in ('dtype', 'loss_scale', 'use_fsdp'):
        wrapper.pop(key, None)
    wrapper['type'] = 'OptimWrapper'
    return ['AmpOptimWrapper needs an accelerator: this training is in full precision, with OptimWrapper.']


def use_local_batch_norm(cfg: Config) -> list[str]:
    """Replace SyncBN, which processes train with on accelerators only; return what to log about it."""
    if cfg.launcher == 'none' or not replace_type(cfg._cfg_dict, ('SyncBN', 'MMSyncBN'), 'BN'):
        return []  # MMEngine itself replaces SyncBN in a single process
    return ['SyncBN needs an accelerator: each process normalises by its own batch, with BN.']


def use_cpu_processes(cfg: Config) -> None:
    """Join the processes of the launcher, with gloo in place of NCCL."""
    join_with_gloo(cfg)
    # as MMEngine wraps a model, but for `device_ids`
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **(cfg.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }


def join_with_gloo(cfg: Config) -> None:
    """Make the process group, which MMEngine then finds there: its own way binds each process to a GPU."""
    if torch.distributed.is_initialized():  # by an earlier runner of this process
        return
    for target, source in zip(RANK_VARIABLES['pytorch'], RANK_VARIABLES[cfg.launcher], strict=True):
        os.environ[target] = os.environ.get(source, '0')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        hosts = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        os.environ['MASTER_ADDR'] = hosts.split()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=seconds))


def replace_type(node: Any, old: tuple[str, ...], new: str) -> int:
    """Replace the ``type`` of every dict below ``node`` that has one of ``old``; return how many there were."""
    if isinstance(node, Mapping):
        found = node.get('type') in old
        if found:
            node['type'] = new
        return found + sum(replace_type(child, old, new) for child in node.values())
    if isinstance(node, (list, tuple)):
        return sum(replace_type(child, old, new) for child in node)
    return 0


def _type_name(cfg: Mapping[str, Any], default: str = '') -> str:
    """Name the class that a config part is for, without its scope; configs in pure Python hold the class itself."""
    kind = cfg.get('type', default)
    return getattr(kind, '__name__', kind).rpartition('.')[2]
