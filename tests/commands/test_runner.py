"""How the arguments of the tools become a config and a runner that fit the machine."""

import argparse
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from isolation import isolated
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmrope.checkpoints.loading import UnsafeCheckpointError
from mmrope.checkpoints.sources import CheckpointError
from mmrope.commands.checks.config import CommandError
from mmrope.engine import launch


def make_config(**parts: Any) -> Config:
    return Config(dict(default_scope='mmengine', launcher='none', **parts))


def shared_arguments(*arguments: str) -> argparse.Namespace:
    parser = launch.ToolParser(prog='tool.py')
    parser.add_argument('config')
    launch.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ('arguments', 'in_file', 'expected'),
    [
        ((), '', 'work_dirs/name'),
        ((), 'work_dir = "from_file"', 'from_file'),
        (('--work-dir', 'given'), 'work_dir = "from_file"', 'given'),
        (('--cfg-options', 'work_dir=option'), '', 'option'),
    ],
)
def test_the_work_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], in_file: str, expected: str
) -> None:
    monkeypatch.setattr(launch, 'refuse_code_in_checkpoints', lambda: None)
    monkeypatch.setenv('LOCAL_RANK', '0')
    path = tmp_path / 'name.py'
    path.write_text(in_file)
    assert launch.load_config(shared_arguments(str(path), *arguments)).work_dir == expected


def test_a_config_is_loaded_only_after_code_in_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(launch, 'refuse_code_in_checkpoints', lambda: calls.append('refused'))
    monkeypatch.setenv('LOCAL_RANK', '0')
    (tmp_path / 'a.py').write_text('')
    launch.load_config(shared_arguments(str(tmp_path / 'a.py')))
    assert calls == ['refused']


@pytest.mark.parametrize('launcher', launch.RANK_VARIABLES)
def test_a_launcher_must_have_started_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    rank, world, _ = launch.RANK_VARIABLES[launcher]
    monkeypatch.setenv(rank, '0')
    monkeypatch.delenv(world, raising=False)
    (tmp_path / 'a.py').write_text('')
    with pytest.raises(CommandError, match=f'--launcher {launcher}: {world} is not set'):
        launch.load_config(shared_arguments(str(tmp_path / 'a.py'), '--launcher', launcher))


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        (dict(optimizer={}), dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer={})),
        (dict(type='OptimWrapper'), dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        (dict(type='AmpOptimWrapper', dtype='bfloat16'), dict(type='AmpOptimWrapper', dtype='bfloat16')),
    ],
)
def test_amp_on_demand(before: dict[str, Any], after: dict[str, Any]) -> None:
    cfg = make_config(optim_wrapper=before)
    launch.use_amp(cfg)
    assert cfg.optim_wrapper == after


def test_amp_replaces_no_other_wrapper() -> None:
    with pytest.raises(CommandError, match='--amp .* ApexOptimWrapper'):
        launch.use_amp(make_config(optim_wrapper=dict(type='ApexOptimWrapper')))


@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper'])
def test_full_precision_drops_what_is_for_amp_only(kind: str) -> None:
    cfg = make_config(
        optim_wrapper=dict(
            type=kind, dtype='bfloat16', loss_scale='dynamic', use_fsdp=False, clip_grad=dict(max_norm=1)
        )
    )
    assert len(launch.use_full_precision(cfg)) == 1
    assert cfg.optim_wrapper == dict(type='OptimWrapper', clip_grad=dict(max_norm=1))
    assert launch.use_full_precision(cfg) == []


def test_amp_of_mmengine_needs_an_accelerator_still() -> None:
    """When this fails on a CPU, ``use_full_precision`` may go."""
    if launch.has_accelerator():
        pytest.skip('there is one')
    with pytest.raises(AssertionError, match='only available'):
        AmpOptimWrapper(optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


class FakeRunner:
    """Takes the place of the runner, and remembers."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.hooks, self.warnings = cfg, [], []
        self.logger = SimpleNamespace(warning=self.warnings.append)

    def register_hook(self, hook: Any) -> None:
        self.hooks.append(hook)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine of which a test says whether it has an accelerator; no process group is made."""
    machine = SimpleNamespace(accelerator=False, joined=0)

    def join(cfg: Config) -> None:
        machine.joined += 1

    monkeypatch.setattr(launch, 'has_accelerator', lambda: machine.accelerator)
    monkeypatch.setattr(launch, 'join_with_gloo', join)
    monkeypatch.setattr(launch.Runner, 'from_cfg', FakeRunner)
    return machine


def recipe(launcher: str = 'none') -> Config:
    return Config(
        dict(
            launcher=launcher,
            model=dict(norm_cfg=dict(type='SyncBN'), heads=[dict(norm_cfg=dict(type='MMSyncBN', eps=1e-3))]),
            optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic'),
            find_unused_parameters=True,
        )
    )


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
@pytest.mark.parametrize('training', [True, False])
def test_with_an_accelerator_a_config_is_run_as_it_is(machine: SimpleNamespace, launcher: str, training: bool) -> None:
    machine.accelerator = True
    runner = launch.build_runner(recipe(launcher), launch.RunStarted(), training)
    assert runner.cfg.to_dict() == recipe(launcher).to_dict()
    assert runner.warnings == []
    assert machine.joined == 0


def test_processes_without_an_accelerator(machine: SimpleNamespace) -> None:
    run = launch.RunStarted()
    runner = launch.build_runner(recipe('pytorch'), run, training=True)
    assert machine.joined == 1
    hooks = ['RunStarted', 'SeedEachIteration', 'CheckSchedules', 'ReportBatchSize']
    assert [type(hook).__name__ for hook in runner.hooks] == hooks
    assert runner.cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True, device_ids=None
    )
    assert runner.cfg.model.norm_cfg.type == 'BN'
    assert runner.cfg.model.heads[0].norm_cfg == dict(type='BN', eps=1e-3)
    assert ['AmpOptimWrapper' in runner.warnings[0], 'SyncBN' in runner.warnings[1]] == [True, True]
    assert len(runner.warnings) == 2


def test_one_process_without_an_accelerator(machine: SimpleNamespace) -> None:
    runner = launch.build_runner(recipe(), launch.RunStarted(), training=True)
    assert machine.joined == 0
    assert 'model_wrapper_cfg' not in runner.cfg
    assert runner.cfg.model == recipe().model  # MMEngine reverts SyncBN by itself
    assert len(runner.warnings) == 1


def test_a_test_needs_no_optimizer(machine: SimpleNamespace) -> None:
    assert launch.build_runner(recipe('pytorch'), launch.RunStarted(), training=False).warnings == []


def test_a_model_wrapper_of_the_config_is_kept() -> None:
    cfg = make_config(model_wrapper_cfg=dict(type='Mine', broadcast_buffers=True))
    cfg.launcher = 'pytorch'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, 'join_with_gloo', lambda cfg: None)
        launch.use_cpu_processes(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='Mine', broadcast_buffers=True, find_unused_parameters=False, device_ids=None
    )


def test_slurm_says_where_the_processes_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, 'x')
        monkeypatch.delenv(name)
    for name, value in dict(PROCID='5', NTASKS='8', LOCALID='1', NODELIST='node[2-3]').items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[2-3]" ] && printf "node2\\nnode3\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    calls: list[Any] = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *args, **kwargs: calls.append((args, kwargs)))
    cfg = make_config(env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60)))
    cfg.launcher = 'slurm'
    launch.join_with_gloo(cfg)
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    assert [os.environ[name] for name in names] == ['5', '8', '1', 'node2', '29500']
    assert calls == [(('gloo',), {'timeout': timedelta(seconds=60)})]


@pytest.mark.parametrize(
    ('kind', 'switch'),
    [('DetVisualizationHook', 'draw'), ('mmseg.SegVisualizationHook', 'draw'), ('VisualizationHook', 'enable')],
)
def test_every_prediction_is_shown_by_the_hook_of_the_host(kind: str, switch: str) -> None:
    """MMPreTrain's has a name of its own for the switch."""
    cfg = make_config(default_hooks=dict(visualization=dict(type=kind)), visualizer=dict(type='Any'))
    launch.draw_predictions(cfg, show=True, show_dir=None, wait_time=0.5)
    expected = {'type': kind, switch: True, 'interval': 1, 'show': True, 'wait_time': 0.5}
    assert cfg.default_hooks.visualization == expected


@pytest.mark.parametrize('kind', ['DetVisualizationHook', 'mmseg.SegVisualizationHook', 'VisualizationHook'])
def test_predictions_are_saved_where_they_are_wanted_by_every_host(kind: str) -> None:
    hook = dict(type=kind, score_thr=0.5, interval=50)
    cfg = make_config(default_hooks=dict(visualization=hook), visualizer=dict(type='Any'))
    launch.draw_predictions(cfg, show=False, show_dir='drawn', wait_time=0.5)
    expected = dict(type='mmrope.DrawPredictionsHook', folder='drawn', score_thr=0.5, show=False, wait_time=0.5)
    assert cfg.default_hooks.visualization == expected
    assert cfg.visualizer == dict(type='Any')


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (CommandError('do this'), 'do this'),
        (UnsafeCheckpointError('not loaded'), 'not loaded'),
        (TypeError('two\n  lines'), 'TypeError: two lines (--traceback shows where)'),
        (KeyError("no 'x' here"), "KeyError: no 'x' here (--traceback shows where)"),
        (
            KeyError('X is not in the mmdet::model registry. Please check whether the value of `X` is correct'),
            'KeyError: X is not in the mmdet::model registry (--traceback shows where)',
        ),
        (
            KeyError('mmrope.RoPEVit is not in the mmengine::model registry. Please check whether the value of ...'),
            'KeyError: mmrope.RoPEVit is not in the mmengine::model registry; did you mean mmrope.RoPEViT? '
            '(--traceback shows where)',
        ),
        (
            KeyError('RoPEViT is not in the model registry. Please check whether the value of ...'),
            'KeyError: RoPEViT is not in the model registry; did you mean mmrope.RoPEViT? (--traceback shows where)',
        ),
        (ValueError('x' * 5000), f'ValueError: {"x" * 600} ... (--traceback shows where)'),
    ],
)
def test_an_error_in_one_line(error: Exception, text: str) -> None:
    assert launch.sentence(error) == text


@pytest.mark.parametrize(
    ('variables', 'waits'), [({}, False), ({'RANK': '0'}, False), ({'RANK': '1'}, True), ({'SLURM_PROCID': '3'}, True)]
)
def test_rank_0_speaks_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], waits: bool
) -> None:
    for rank, _, _ in launch.RANK_VARIABLES.values():
        monkeypatch.delenv(rank, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    slept: list[float] = []
    monkeypatch.setattr(launch.time, 'sleep', slept.append)
    args = argparse.Namespace(traceback=False, launcher='none')
    with pytest.raises(SystemExit) as caught, launch.errors_in_one_sentence('tool.py', args):
        raise CommandError('do this')
    assert caught.value.code == 1
    assert capsys.readouterr().err == 'tool.py: error: do this\n'
    assert slept == ([launch.GRACE] if waits else [])


def test_an_error_passes_through_once_the_run_has_started(tmp_path: Path) -> None:
    args = argparse.Namespace(traceback=False, launcher='none')
    for stage in ('before_train', 'before_test'):
        with pytest.raises(CommandError), launch.errors_in_one_sentence('tool.py', args) as run:
            getattr(run, stage)(runner_at(tmp_path))
            raise CommandError('later')


def runner_at(work_dir: Path, iteration: int = 0) -> SimpleNamespace:
    """As much of a runner as knows where a training is."""
    return SimpleNamespace(work_dir=str(work_dir), iter=iteration)


@pytest.mark.parametrize('workers_end_too', [False, True])
def test_ctrl_c_is_an_interruption_whatever_it_breaks(
    workers_end_too: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = argparse.Namespace(traceback=False, launcher='none', resume=None)
    with pytest.raises(SystemExit) as caught, launch.errors_in_one_sentence('tool.py', args) as run:
        run.before_train(runner_at(tmp_path))
        (tmp_path / 'last_checkpoint').touch()
        try:
            raise KeyboardInterrupt
        finally:
            if workers_end_too:
                raise RuntimeError('DataLoader worker exited unexpectedly')
    assert caught.value.code == 130
    assert capsys.readouterr().err.startswith('tool.py: interrupted; the checkpoints in the work dir are whole')


def interrupted(work_dir: Path, capsys: pytest.CaptureFixture[str], iteration: int | None) -> str:
    """What is said when Ctrl-C ends a training that began at an iteration, or was still building."""
    args = argparse.Namespace(traceback=False, launcher='none', resume=None)
    with pytest.raises(SystemExit), launch.errors_in_one_sentence('tool.py', args) as run:
        if iteration is not None:
            run.before_train(runner_at(work_dir, iteration))
        raise KeyboardInterrupt
    return capsys.readouterr().err


def test_ctrl_c_before_the_first_checkpoint_promises_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = 'tool.py: interrupted; this training has no checkpoint yet: the same command begins it again\n'
    assert [interrupted(tmp_path, capsys, iteration) for iteration in (0, 5)] == [none] * 2
    (tmp_path / 'last_checkpoint').touch()  # of an earlier training, unless this one has resumed from it
    assert interrupted(tmp_path, capsys, 0) == none
    assert interrupted(tmp_path, capsys, None) == 'tool.py: interrupted before the training began\n'
    assert 'go on with --resume' in interrupted(tmp_path, capsys, 5)


def train_config(folder: Path, flag: str | None, **parts: Any) -> tuple[Config, list[str]]:
    """Prepare a training of a config without data, in ``folder / 'work'``; return its config and what is logged."""
    config = folder / 'a.py'
    config.write_text(''.join(f'{key} = {value!r}\n' for key, value in parts.items()))
    run = launch.RunStarted()
    run.args = shared_arguments(str(config), '--work-dir', str(folder / 'work'))
    vars(run.args).update(amp=False, auto_scale_lr=False, resume=flag)
    with isolated():
        cfg = launch.prepare_training(run.args)
    return cfg, launch.nothing_to_resume(cfg, run)


BY_FLAG = ('auto', {})
BY_CONFIG = (None, {'resume': True})


@pytest.mark.parametrize(
    ('how', 'load_from'), [(BY_FLAG, None), (BY_FLAG, 'first.pth'), (BY_CONFIG, None)], ids=['flag', 'flag2', 'config']
)
def test_nothing_to_resume_begins_as_the_config_says(
    how: tuple[str | None, dict[str, Any]], load_from: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('first.pth').touch()
    cfg, (note,) = train_config(tmp_path, how[0], **how[1], load_from=load_from)
    assert (cfg.resume, cfg.load_from) == (False, load_from)
    assert str(tmp_path / 'work') in note and (load_from or 'its first weights') in note


def test_load_from_of_a_config_that_resumes_is_resumed_from(tmp_path: Path) -> None:
    """As MMEngine has it."""
    (tmp_path / 'first.pth').touch()
    cfg, notes = train_config(tmp_path, None, resume=True, load_from=str(tmp_path / 'first.pth'))
    assert (cfg.resume, cfg.load_from, notes) == (True, str(tmp_path / 'first.pth'), [])


@pytest.mark.parametrize('how', [BY_FLAG, BY_CONFIG], ids=['flag', 'config'])
@pytest.mark.parametrize('out_dir', [None, 'out'])
def test_only_checkpoints_of_the_own_work_dir_are_resumed(
    how: tuple[str | None, dict[str, Any]], out_dir: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, other = Path(out_dir or '.', 'work').absolute(), Path('other').absolute()
    for folder in (own, tmp_path / 'work', other):
        folder.mkdir(parents=True, exist_ok=True)
    for path in (own / 'iter_4.pth', other / 'iter_4.pth', other / 'iter_8.pth', Path('first.pth')):
        torch.save({}, path)
    saving = dict(type='CheckpointHook', by_epoch=False, out_dir=out_dir)
    parts = dict(how[1], default_hooks=dict(checkpoint=saving), **({'load_from': 'first.pth'} if how[0] else {}))
    for named in ('iter_4.pth', 'iter_8.pth'):
        (tmp_path / 'work' / 'last_checkpoint').write_text(str(other / named))
        cfg, notes = train_config(tmp_path, how[0], **parts)
        assert (cfg.resume, notes) == (True, []) and os.path.samefile(cfg.load_from, own / 'iter_4.pth')
    (own / 'iter_4.pth').unlink()
    with pytest.raises(CheckpointError, match='--resume: no checkpoint in .*work is whole'):
        train_config(tmp_path, how[0], **parts)


def test_a_named_checkpoint_is_resumed_before_all_others(tmp_path: Path) -> None:
    for path in (tmp_path / 'work' / 'epoch_4.pth', tmp_path / 'named.pth', tmp_path / 'first.pth'):
        path.parent.mkdir(exist_ok=True)
        torch.save({}, path)
    cfg, notes = train_config(tmp_path, str(tmp_path / 'named.pth'), load_from=str(tmp_path / 'first.pth'))
    assert (cfg.resume, cfg.load_from, notes) == (True, str(tmp_path / 'named.pth'), [])


def test_checkpoints_in_a_storage_are_those_of_the_own_folder_there(tmp_path: Path) -> None:
    (tmp_path / 'work').mkdir()
    parts = dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', out_dir='s3://runs')))
    assert not train_config(tmp_path, 'auto', **parts)[0].resume
    (tmp_path / 'work' / 'last_checkpoint').write_text('s3://others/run/epoch_2.pth')
    cfg, _ = train_config(tmp_path, 'auto', **parts)
    assert (cfg.resume, cfg.load_from) == (True, 's3://runs/work/epoch_2.pth')


@pytest.mark.parametrize(
    ('preprocessor', 'training', 'one_size'),
    [
        (dict(pad_size_divisor=32), True, False),
        (dict(pad_size_divisor=1024), True, True),
        (dict(pad_size_divisor=1024), False, True),
        (dict(size=(512, 512), test_cfg=dict(size_divisor=16)), True, True),
        (dict(size=(512, 512), test_cfg=dict(size_divisor=16)), False, False),
        (None, True, False),
    ],
)
def test_cudnn_plans_attention_only_for_images_of_one_size(preprocessor, training, one_size, monkeypatch) -> None:
    switched = []
    monkeypatch.setattr(torch.backends.cuda, 'enable_cudnn_sdp', switched.append)
    monkeypatch.setattr(launch.Runner, 'from_cfg', lambda cfg: pytest.fail('built'))
    cfg = make_config(model=dict(type='Model', data_preprocessor=preprocessor))
    with pytest.raises(pytest.fail.Exception, match='built'):
        launch.build_runner(cfg, launch.RunStarted(), training=training)
    assert switched == ([] if one_size else [False])
