"""From the arguments of a command to a config and a runner that fit the machine."""

import argparse
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import LoggerHook
from mmengine.optim import AmpOptimWrapper

from mmrope.checkpoints.sources import CheckpointError
from mmrope.commands import config as configs
from mmrope.commands import runner
from mmrope.commands.cli import add_config, add_run
from mmrope.commands.errors import CommandError, Run
from mmrope.ops import describe
from tests.helpers.isolation import isolated


def make_config(**parts: Any) -> Config:
    return Config(dict(default_scope='mmengine', launcher='none', **parts))


def run_arguments(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config(parser)
    add_run(parser)
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
    monkeypatch.setattr(configs, 'refuse_code_in_checkpoints', lambda: None)
    monkeypatch.setenv('LOCAL_RANK', '0')
    path = tmp_path / 'name.py'
    path.write_text(in_file)
    assert runner.read_run_config(run_arguments(str(path), *arguments)).work_dir == expected


def test_a_config_is_loaded_only_after_code_in_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(configs, 'refuse_code_in_checkpoints', lambda: calls.append('refused'))
    monkeypatch.setenv('LOCAL_RANK', '0')
    (tmp_path / 'a.py').write_text('')
    runner.read_run_config(run_arguments(str(tmp_path / 'a.py')))
    assert calls == ['refused']


@pytest.mark.parametrize('launcher', runner.RANK_VARIABLES)
def test_a_launcher_must_have_started_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    rank, world = runner.RANK_VARIABLES[launcher]
    monkeypatch.setenv(rank, '0')
    monkeypatch.delenv(world, raising=False)
    (tmp_path / 'a.py').write_text('')
    with pytest.raises(CommandError, match=rf'--launcher {launcher}\b.*\b{world}\b'):
        runner.read_run_config(run_arguments(str(tmp_path / 'a.py'), '--launcher', launcher))


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
    runner.use_amp(cfg)
    assert cfg.optim_wrapper == after


def test_amp_replaces_no_other_wrapper() -> None:
    with pytest.raises(CommandError, match='--amp.* ApexOptimWrapper'):
        runner.use_amp(make_config(optim_wrapper=dict(type='ApexOptimWrapper')))
    with pytest.raises(CommandError, match='--amp.*optim_wrapper'):
        runner.use_amp(make_config(optim_wrapper=None))


@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper'])
def test_full_precision_drops_the_options_of_amp(kind: str) -> None:
    cfg = make_config(
        optim_wrapper=dict(
            type=kind, dtype='bfloat16', loss_scale='dynamic', use_fsdp=False, clip_grad=dict(max_norm=1)
        )
    )
    assert len(runner.use_full_precision(cfg)) == 1
    assert cfg.optim_wrapper == dict(type='OptimWrapper', clip_grad=dict(max_norm=1))
    assert runner.use_full_precision(cfg) == []


def test_amp_of_mmengine_needs_an_accelerator_still() -> None:
    """When this fails on a CPU, ``use_full_precision`` may go."""
    if runner.has_accelerator():
        pytest.skip('there is one')
    with pytest.raises(AssertionError, match='only available'):
        AmpOptimWrapper(optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


class FakeRunner:
    """Takes the place of the runner, and remembers."""

    default_hooks: tuple[Any, ...] = ()

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.hooks, self.warnings, self.infos = cfg, list(self.default_hooks), [], []
        self.logger = SimpleNamespace(warning=self.warnings.append, info=self.infos.append)

    def register_hook(self, hook: Any) -> None:
        self.hooks.append(hook)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine of which a test says whether it has an accelerator; no process group is made."""
    machine = SimpleNamespace(accelerator=False, joined=[])
    monkeypatch.setattr(runner, 'has_accelerator', lambda: machine.accelerator)
    monkeypatch.setattr(torch.distributed, 'init_process_group', machine.joined.append)
    monkeypatch.setattr(runner.Runner, 'from_cfg', FakeRunner)
    return machine


def recipe(launcher: str = 'none', **parts: Any) -> Config:
    amp = dict(type='AmpOptimWrapper', loss_scale='dynamic')
    model = dict(
        norm_cfg=dict(type='SyncBN'),
        heads=[dict(norm_cfg=dict(type='MMSyncBN', eps=1e-3)), dict(type=torch.nn.SyncBatchNorm)],
    )
    return Config(dict(launcher=launcher, model=model, optim_wrapper=amp, find_unused_parameters=True, **parts))


@pytest.mark.parametrize('launcher', ['none', 'pytorch', 'slurm'])
@pytest.mark.parametrize('training', [True, False])
def test_with_an_accelerator_a_config_is_unchanged(machine: SimpleNamespace, launcher: str, training: bool) -> None:
    machine.accelerator = True
    built = runner.build_runner(recipe(launcher), Run(), training)
    assert built.cfg.to_dict() == recipe(launcher).to_dict()
    assert built.warnings == [] and machine.joined == []


def test_processes_without_an_accelerator(machine: SimpleNamespace) -> None:
    built = runner.build_runner(recipe('pytorch'), Run(), training=True)
    assert machine.joined == ['gloo']
    hooks = ['RunStarted', 'SeedEachIteration', 'CheckSchedules', 'ReportBatchSize']
    assert [type(hook).__name__ for hook in built.hooks] == hooks
    assert built.cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True, device_ids=None
    )
    assert built.cfg.model.norm_cfg.type == 'BN'
    assert built.cfg.model.heads[0].norm_cfg == dict(type='BN', eps=1e-3) and built.cfg.model.heads[1].type == 'BN'
    assert ['AmpOptimWrapper' in built.warnings[0], 'SyncBN' in built.warnings[1]] == [True, True]
    assert len(built.warnings) == 2


def test_one_process_without_an_accelerator(machine: SimpleNamespace) -> None:
    built = runner.build_runner(recipe(), Run(), training=True)
    assert machine.joined == []
    assert built.infos == [describe()]
    assert 'model_wrapper_cfg' not in built.cfg
    assert built.cfg.model == recipe().model  # MMEngine reverts SyncBN by itself
    assert len(built.warnings) == 1


def test_a_test_needs_no_optimizer_and_no_word_on_its_norms(machine: SimpleNamespace) -> None:
    built = runner.build_runner(recipe('pytorch'), Run(), training=False)
    assert built.warnings == []
    assert built.cfg.model.norm_cfg.type == 'BN'


@pytest.mark.parametrize('main', [True, False])
def test_one_process_of_a_test_writes_its_metrics(
    main: bool, machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them would write one file, and in `make test` two once wrote it at the same time."""
    monkeypatch.setattr(runner, 'is_main_process', lambda: main)
    monkeypatch.setattr(FakeRunner, 'default_hooks', (LoggerHook(),))
    built = runner.build_runner(recipe('pytorch'), Run(), training=False)
    assert any(isinstance(hook, LoggerHook) for hook in built.hooks) == main


def test_a_model_wrapper_of_the_config_is_kept(machine: SimpleNamespace) -> None:
    cfg = recipe('pytorch', model_wrapper_cfg=dict(type='Mine', broadcast_buffers=True))
    assert runner.build_runner(cfg, Run(), training=False).cfg.model_wrapper_cfg == dict(
        type='Mine', broadcast_buffers=True, find_unused_parameters=True, device_ids=None
    )


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_only_torchrun_starts_processes_without_an_accelerator(machine: SimpleNamespace, launcher: str) -> None:
    with pytest.raises(CommandError, match=f'--launcher {launcher}'):
        runner.build_runner(recipe(launcher), Run(), training=True)


@pytest.mark.parametrize(
    ('kind', 'switch'),
    [('DetVisualizationHook', 'draw'), ('mmseg.SegVisualizationHook', 'draw'), ('VisualizationHook', 'enable')],
)
def test_every_prediction_is_shown_by_the_hook_of_the_host(kind: str, switch: str) -> None:
    """MMPreTrain's has a name of its own for the switch."""
    cfg = make_config(default_hooks=dict(visualization=dict(type=kind)), visualizer=dict(type='Any'))
    runner.draw_predictions(cfg, show=True, show_dir=None, wait_time=0.5)
    expected = {'type': kind, switch: True, 'interval': 1, 'show': True, 'wait_time': 0.5}
    assert cfg.default_hooks.visualization == expected


def test_predictions_need_a_hook() -> None:
    with pytest.raises(CommandError, match='--show-dir.*visualization'):
        runner.draw_predictions(make_config(default_hooks=None), show=False, show_dir='drawn', wait_time=0.5)


@pytest.mark.parametrize('kind', ['DetVisualizationHook', 'mmseg.SegVisualizationHook', 'VisualizationHook'])
def test_predictions_are_saved_where_they_are_wanted_by_every_host(kind: str) -> None:
    hook = dict(type=kind, score_thr=0.5, interval=50)
    cfg = make_config(default_hooks=dict(visualization=hook), visualizer=dict(type='Any'))
    runner.draw_predictions(cfg, show=False, show_dir='drawn', wait_time=0.5)
    expected = dict(type='mmrope.DrawPredictionsHook', folder='drawn', score_thr=0.5, show=False, wait_time=0.5)
    assert cfg.default_hooks.visualization == expected
    assert cfg.visualizer == dict(type='Any')


def train_config(folder: Path, flag: str | None, **parts: Any) -> tuple[Config, list[str]]:
    """Prepare a training of a config without data, in ``folder / 'work'``; return its config and what is logged."""
    cfg = Config(dict(parts, work_dir=str(folder / 'work'), launcher='none'))
    with isolated():
        notes = runner.prepare_training(cfg, resume=flag)
    return cfg, notes


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
    assert str(tmp_path / 'work') in note and (load_from or 'weights') in note


def test_load_from_of_a_config_that_resumes_is_resumed_from(tmp_path: Path) -> None:
    """MMEngine does the same."""
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
    with pytest.raises(CheckpointError, match=f'--resume.*{Path(out_dir or tmp_path, "work")}'):
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
        (dict(pad_size_divisor=448), False, True),
        (dict(pad_size_divisor=1024), False, True),
        (dict(size=(512, 512), test_cfg=dict(size_divisor=16)), True, True),
        (dict(size=(512, 512), test_cfg=dict(size_divisor=16)), False, False),
        (None, True, False),
    ],
)
def test_cudnn_plans_attention_only_for_images_of_one_size(
    preprocessor: dict | None, training: bool, one_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched = []
    monkeypatch.setattr(torch.backends.cuda, 'enable_cudnn_sdp', switched.append)
    monkeypatch.setattr(runner.Runner, 'from_cfg', lambda cfg: pytest.fail('built'))
    cfg = make_config(model=dict(type='Model', data_preprocessor=preprocessor))
    with pytest.raises(pytest.fail.Exception, match='built'):
        runner.build_runner(cfg, Run(), training=training)
    assert switched == ([] if one_size else [False])
