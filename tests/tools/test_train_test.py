"""tools/train.py and tools/test.py, from a handful of images to metrics, and what they say when something is wrong."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmrope import RoPEViT
from mmrope.checkpoints.loading import load_checkpoint
from mmrope.commands.runner import has_accelerator
from tests.helpers.tiny import CONFIGS, IMAGES, ROOT, isolated, load_tool, python_path


@pytest.fixture(scope='module')
def tools() -> SimpleNamespace:
    return SimpleNamespace(train=load_tool('train').main, test=load_tool('test').main)


@pytest.fixture(scope='module', params=CONFIGS)
def trained(
    request: pytest.FixtureRequest,
    tools: SimpleNamespace,
    write_config: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> SimpleNamespace:
    """A config, trained from its folder with nothing but its name."""
    folder = tmp_path_factory.mktemp(request.param)
    config = write_config(folder, request.param)
    here = os.getcwd()
    os.chdir(folder)
    try:
        with isolated():
            tools.train([config])
    finally:
        os.chdir(here)
    checkpoint = {'detection': 'epoch_1.pth', 'segmentation': 'iter_2.pth'}[request.param]
    work_dir = folder / 'work_dirs' / request.param
    return SimpleNamespace(kind=request.param, config=config, work_dir=work_dir, checkpoint=work_dir / checkpoint)


def read_log(work_dir: Path) -> str:
    """The text of the latest run in a work dir."""
    return sorted(work_dir.glob('*/*.log'))[-1].read_text()


def read_metrics(work_dir: Path) -> dict[str, float]:
    """The metrics of the latest test in a work dir."""
    return json.loads(sorted(work_dir.glob('*/*.json'))[-1].read_text())


def test_training_writes_a_checkpoint(trained: SimpleNamespace) -> None:
    assert load_checkpoint(trained.checkpoint)['meta']['iter'] == {'detection': 5, 'segmentation': 2}[trained.kind]


def test_mixed_precision_falls_back_with_one_warning(trained: SimpleNamespace) -> None:
    lines = [line for line in read_log(trained.work_dir).splitlines() if re.search('WARNING.*AmpOptimWrapper', line)]
    assert len(lines) == (trained.kind == 'detection' and not has_accelerator())


def test_a_second_training_under_the_same_seed_gives_the_same_bits(
    trained: SimpleNamespace, tools: SimpleNamespace, tmp_path: Path
) -> None:
    tools.train([trained.config, '--work-dir', str(tmp_path)])
    first, second = (load_checkpoint(folder / trained.checkpoint.name) for folder in (trained.work_dir, tmp_path))
    assert list(first['state_dict']) == list(second['state_dict'])
    assert all(torch.equal(value, second['state_dict'][name]) for name, value in first['state_dict'].items())


@pytest.mark.parametrize('named', [True, False])
def test_a_resumed_training_goes_on_where_it_stopped(
    trained: SimpleNamespace, tools: SimpleNamespace, tmp_path: Path, named: bool
) -> None:
    work_dir = tmp_path / 'resumed'
    if named:
        arguments = ['--resume', str(trained.checkpoint)]
    else:
        work_dir.mkdir()
        shutil.copy(trained.checkpoint, work_dir)
        shutil.copy(trained.work_dir / 'last_checkpoint', work_dir)
        arguments = ['--resume']
    length = {'detection': 'train_cfg.max_epochs=2', 'segmentation': 'train_cfg.max_iters=4'}[trained.kind]
    tools.train([trained.config, '--work-dir', str(work_dir), *arguments, '--cfg-options', length])
    final = load_checkpoint(work_dir / {'detection': 'epoch_2.pth', 'segmentation': 'iter_4.pth'}[trained.kind])
    assert (final['meta']['epoch'], final['meta']['iter']) == {'detection': (2, 10), 'segmentation': (0, 4)}[
        trained.kind
    ]
    assert (work_dir / trained.checkpoint.name).exists() != named  # as it would after a second start from scratch
    losses = final['message_hub']['log_scalars']['train/loss'].data[0]
    assert len(losses) == {'detection': 10, 'segmentation': 4}[trained.kind]  # those of the first part too
    if trained.kind == 'detection':
        assert {state['step'].item() for state in final['optimizer']['state'].values()} == {10}


def test_testing_gives_the_metrics_of_the_last_validation(
    trained: SimpleNamespace, tools: SimpleNamespace, tmp_path: Path
) -> None:
    out, drawn = tmp_path / 'predictions.pkl', tmp_path / 'drawn'
    tools.test(
        [
            trained.config,
            str(trained.checkpoint),
            '--work-dir',
            str(tmp_path),
            '--out',
            str(out),
            '--show-dir',
            str(drawn),
        ]
    )
    scalars = sorted(trained.work_dir.glob('*/vis_data/scalars.json'))[-1].read_text().splitlines()
    expected = json.loads(scalars[-1])
    measured = read_metrics(tmp_path)
    name = {'detection': 'coco/bbox_mAP', 'segmentation': 'mIoU'}[trained.kind]
    assert measured[name] == pytest.approx(expected[name], abs=1e-6)
    assert measured[name] > 0
    check_predictions(out, trained.kind)
    names = sorted(str(path.relative_to(drawn)) for path in drawn.rglob('*') if path.is_file())
    assert names == [f'{index}.png' for index in range(IMAGES)]
    assert re.search(rf'predictions.* {drawn}$', read_log(tmp_path), re.MULTILINE)


@pytest.mark.parametrize(
    'prefix, hooks',
    [('module.', []), ('module._orig_mod.', []), ('', [dict(type='EMAHook')])],
    ids=['wrapped', 'compiled', 'averaged'],
)
def test_checkpoints_of_wrapped_and_averaged_models(
    trained: SimpleNamespace, tools: SimpleNamespace, tmp_path: Path, prefix: str, hooks: list[dict]
) -> None:
    checkpoint = load_checkpoint(trained.checkpoint)
    expected = json.loads(sorted(trained.work_dir.glob('*/vis_data/scalars.json'))[-1].read_text().splitlines()[-1])
    checkpoint['state_dict'] = {f'{prefix}{key}': value for key, value in checkpoint['state_dict'].items()}
    torch.save(checkpoint, tmp_path / 'model.pth')
    config = tmp_path / 'config.py'
    config.write_text(f'{Path(trained.config).read_text()}\ncustom_hooks = {hooks}\n')
    tools.test([str(config), str(tmp_path / 'model.pth'), '--work-dir', str(tmp_path)])
    name = {'detection': 'coco/bbox_mAP', 'segmentation': 'mIoU'}[trained.kind]
    assert read_metrics(tmp_path)[name] == pytest.approx(expected[name], abs=1e-6)


def test_a_checkpoint_of_other_classes_is_not_tested(
    trained: SimpleNamespace, tools: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(trained.checkpoint)
    checkpoint['meta']['dataset_meta']['classes'] = ('one', 'two')
    torch.save(checkpoint, tmp_path / 'model.pth')
    with pytest.raises(SystemExit):
        tools.test([trained.config, str(tmp_path / 'model.pth'), '--work-dir', str(tmp_path / 'work')])
    assert re.search(r'model\.pth\b.*\b2\b.*one, two.*test_dataloader', capsys.readouterr().err)
    assert not (tmp_path / 'work').exists()


def check_predictions(path: Path, kind: str) -> None:
    """Predictions are there for each image, without what the metrics compare them to."""
    predictions = pickle.loads(path.read_bytes())
    assert len(predictions) == IMAGES
    part = {'detection': 'pred_instances', 'segmentation': 'pred_sem_seg'}[kind]
    for prediction in predictions:
        assert part in prediction
        assert not {'gt_instances', 'gt_sem_seg', 'seg_logits'} & set(prediction)


def test_test_time_augmentation(trained: SimpleNamespace, tools: SimpleNamespace, tmp_path: Path) -> None:
    tools.test([trained.config, str(trained.checkpoint), '--work-dir', str(tmp_path), '--tta'])
    assert {'detection': 'coco/bbox_mAP', 'segmentation': 'mIoU'}[trained.kind] in read_metrics(tmp_path)
    assert 'TTAModel' in read_log(tmp_path)


NO_TTA = 'del tta_model, tta_pipeline\n'


@pytest.mark.parametrize('trained', ['detection'], indirect=True)
def test_a_detector_without_an_augmentation_is_flipped(
    tools: SimpleNamespace, write_config: Callable[..., str], tmp_path: Path, trained: SimpleNamespace
) -> None:
    config = Path(write_config(tmp_path, 'detection'))
    config.write_text(config.read_text() + NO_TTA)
    tools.test([str(config), str(trained.checkpoint), '--work-dir', str(tmp_path / 'work'), '--tta'])
    assert 'coco/bbox_mAP' in read_metrics(tmp_path / 'work')
    assert 'DetTTAModel' in read_log(tmp_path / 'work')


@pytest.mark.parametrize(
    ('kind', 'length'),
    [('detection', r'\b1\b.*epoch'), ('segmentation', r'\b2\b.*\b0\.8\b.*\b3\.2\b')],
)
def test_another_batch_than_the_learning_rates_is_said_once_in_log_and_console(
    tools: SimpleNamespace,
    write_config: Callable[..., str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    length: str,
) -> None:
    options = ['--cfg-options', 'auto_scale_lr.base_batch_size=8']
    tools.train([write_config(tmp_path, kind), '--work-dir', str(tmp_path / 'work'), *options])
    for text in (read_log(tmp_path / 'work'), ''.join(capfd.readouterr())):
        (line,) = [line for line in text.splitlines() if 'global batch' in line]
        assert re.search(rf'global batch.*\b2\b.*\b1\b.*\b2\b.*\b8\b.*{length}', line)


NO_FILE = 'train_dataloader.dataset.dataset.ann_file=none.json'
CHECKPOINT_OF_BACKBONE = 'model.backbone.init_cfg.checkpoint=malicious.pth'
MISTAKES = {
    'config': ('train', ['detectoin.py'], ['config.* detectoin.py.* detection.py']),
    'config of a test': ('test', ['none.py', 'none.pth'], ['config.* none.py']),
    'checkpoint to resume': ('train', ['detection.py', '--resume', 'none.pth'], ['--resume', 'none.pth']),
    'checkpoint to load': ('train', ['detection.py', '--cfg-options', 'load_from=none.pth'], ['load_from', 'none.pth']),
    'checkpoint to test': ('test', ['detection.py', 'none.pth'], ['CHECKPOINT', 'none.pth']),
    'annotations': ('train', ['detection.py', '--cfg-options', NO_FILE], ['none.json', 'docs/train.md', '--data-root']),
    'images': (
        'train',
        ['detection.py', '--cfg-options', 'val_dataloader.dataset.data_prefix.img=none/'],
        ['val_dataloader', 'none/'],
    ),
    'evaluator': (
        'test',
        ['detection.py', 'empty.pth', '--cfg-options', 'test_evaluator.ann_file=none.json'],
        ['test_evaluator', 'none.json'],
    ),
    'data root': ('train', ['detection.py', '--data-root', 'none'], ['--data-root', 'none']),
    'option': (
        'train',
        ['detection.py', '--cfg-options', 'train_dataloder.batch_size=1'],
        ['train_dataloder.* train_dataloader'],
    ),
    'option through a value': (
        'train',
        ['detection.py', '--cfg-options', 'train_cfg.max_epochs.x=1'],
        ['max_epochs', "<class 'int'>"],
    ),
    'learning rate': ('train', ['segmentation.py', '--auto-scale-lr'], ['--auto-scale-lr', 'base_batch_size']),
    'amp': ('train', ['segmentation.py', '--amp', '--cfg-options', 'optim_wrapper.type=Other'], ['--amp', 'Other']),
    'no tta': ('test', ['segmenter.py', 'empty.pth', '--tta'], ['--tta', 'tta_model', 'tta_pipeline']),
    'no hook': ('test', ['bare.py', 'empty.pth', '--show-dir', 'drawn'], ['--show-dir', 'default_hooks.visualization']),
    'out': ('test', ['detection.py', 'empty.pth', '--out', 'a.json'], ['--out', '.pkl', 'a.json']),
    'folder of out': ('test', ['detection.py', 'empty.pth', '--out', 'empty.pth/a.pkl'], ['--out', 'empty.pth/a.pkl']),
    'launcher': ('train', ['detection.py', '--launcher', 'pytorch'], ['--launcher pytorch', 'RANK']),
    'config file': ('train', ['broken.py'], ['broken.py.*SyntaxError']),
    'model': (
        'train',
        ['detection.py', '--cfg-options', 'model.type=RetinaNett'],
        ['RetinaNett .*registry'],
    ),
    'argument of the model': (
        'train',
        ['detection.py', '--cfg-options', 'model.backbone.colour=red'],
        [r'ResNet\.__init__\(\)', 'colour', '--traceback'],
    ),
    'argument of the data set': (
        'train',
        ['detection.py', '--cfg-options', 'train_dataloader.dataset.dataset.colour=red'],
        ['TypeError.*colour'],
    ),
    'optimizer': (
        'train',
        ['detection.py', '--cfg-options', 'optim_wrapper.optimizer.type=AdamX'],
        [r'AdamX\b.* Adam\b'],
    ),
    'malicious': ('test', ['detection.py', 'malicious.pth'], ['malicious.pth', 'mkdir']),
    'malicious to resume': ('train', ['detection.py', '--resume', 'malicious.pth'], ['malicious.pth', 'mkdir']),
    'malicious to load': (
        'train',
        ['detection.py', '--cfg-options', 'load_from=malicious.pth'],
        ['malicious.pth', 'mkdir'],
    ),
    'malicious weights': (
        'train',
        ['detection.py', '--cfg-options', 'model.backbone.init_cfg.type=Pretrained', CHECKPOINT_OF_BACKBONE],
        ['malicious.pth', 'mkdir'],
    ),
    'trust in no file': (
        'train',
        ['detection.py', '--resume', '--trust-checkpoint'],
        ['--trust-checkpoint.*--resume CHECKPOINT'],
    ),
    'repository': (
        'test',
        ['detection.py', 'hf-hub:owner'],
        ['hf-hub:owner .*hf-hub:OWNER/NAME.*@REVISION.*/FILE'],
    ),
    'weights of another kind': (
        'train',
        ['vit.py'],
        [r"axial\.pth\b.*RoPEViT.*rope='axial'.*\bblocks\.0\."],
    ),
    'checkpoint of nothing': (
        'test',
        ['detection.py', 'nothing.pth'],
        [r'nothing\.pth\b.* backbone\.'],
    ),
    'damaged': ('test', ['detection.py', 'empty.pth'], ['empty.pth.*empty']),
}


class Malicious:
    """Makes a folder when it is unpickled by Python's own pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ('was_here',)


@pytest.fixture
def folder(tmp_path: Path, write_config: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with configs and checkpoints to go wrong with."""
    for kind in CONFIGS:
        write_config(tmp_path, kind)
    (tmp_path / 'bare.py').write_text((tmp_path / 'detection.py').read_text() + 'default_hooks.pop("visualization")\n')
    (tmp_path / 'segmenter.py').write_text((tmp_path / 'segmentation.py').read_text() + NO_TTA)
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    init_cfg = dict(type='Pretrained', checkpoint='axial.pth')
    (tmp_path / 'vit.py').write_text(
        (tmp_path / 'detection.py').read_text()
        + f'model["backbone"] = dict(type="mmrope.RoPEViT", arch="tiny", init_cfg={init_cfg})\n'
    )
    torch.save(RoPEViT('tiny', rope='axial').state_dict(), tmp_path / 'axial.pth')
    (tmp_path / 'empty.pth').write_bytes(b'')
    torch.save({'state_dict': {}}, tmp_path / 'nothing.pth')
    torch.save({'state_dict': {}, 'meta': Malicious()}, tmp_path / 'malicious.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_trusted_checkpoint_loads_with_all_it_holds(
    trained: SimpleNamespace, tools: SimpleNamespace, folder: Path
) -> None:
    torch.save({**load_checkpoint(trained.checkpoint), 'extra': Malicious()}, folder / 'old.pth')
    tools.test([trained.config, 'old.pth', '--work-dir', 'tested', '--trust-checkpoint'])
    assert (folder / 'was_here').is_dir()
    assert read_metrics(folder / 'tested')


def leave(tool: Callable[[Sequence[str]], None], arguments: list[str]) -> int:
    """Run a tool that is to end with an error; return its exit code."""
    with pytest.raises(SystemExit) as caught:
        tool(arguments)
    return caught.value.code


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_ends_in_one_sentence(
    mistake: str, tools: SimpleNamespace, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, arguments, words = MISTAKES[mistake]
    assert leave(getattr(tools, name), arguments) == 1
    errors = capsys.readouterr().err
    assert 'Traceback' not in errors
    lines = [line for line in errors.splitlines() if line.startswith(f'{name}.py: error: ')]
    assert len(lines) == 1
    assert lines[0] == errors.splitlines()[-1]
    for word in words:
        assert re.search(word, lines[0])
    assert not (folder / 'was_here').exists()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['detection.py', '--colour', 'red'], 'unrecognized arguments: --colour red'),
        (['detection.py', '--cfg-options', 'work_dir'], "--cfg-options.*'work_dir'"),
        (['detection.py', '--cfg-options', '=1'], "--cfg-options.*'=1'"),
        (['detection.py', '--cfg-options', 'a=[1,[2]'], '--cfg-options: Imbalanced brackets'),
        ([], 'the following arguments are required: CONFIG'),
    ],
)
def test_a_wrong_command_line_ends_in_the_usage(
    tools: SimpleNamespace, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert leave(tools.train, arguments) == 2
    assert re.match(f'train.py: error: {words}', capsys.readouterr().err.splitlines()[-1])


def test_frames_are_shown_on_demand(tools: SimpleNamespace, folder: Path) -> None:
    with pytest.raises(TypeError, match='colour'):
        tools.train(['detection.py', '--traceback', '--cfg-options', 'model.backbone.colour=red'])


def test_a_loss_that_is_not_finite_ends_in_one_sentence(
    tools: SimpleNamespace, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / 'nan.py').write_text(
        (folder / 'detection.py').read_text()
        + "custom_hooks = [dict(type='mmrope.FiniteLossHook')]\n"
        + "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e30))\n"
    )
    assert leave(tools.train, ['nan.py', '--work-dir', 'work']) == 1
    errors = capsys.readouterr().err
    assert 'Traceback' not in errors
    line = errors.splitlines()[-1]
    assert re.match(r'train\.py: error: .*\biteration \d+\b.*\bloss_cls = .*no checkpoint', line)
    assert not list((folder / 'work').glob('*.pth'))


def test_an_error_of_the_training_itself_keeps_its_frames(tools: SimpleNamespace, folder: Path) -> None:
    with pytest.raises(RuntimeError, match='expected input'):
        tools.train(['detection.py', '--cfg-options', 'model.bbox_head.in_channels=8'])


def test_the_data_root_of_the_command_line(
    tools: SimpleNamespace, folder: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder / 'elsewhere.py'
    config.write_text((folder / 'detection.py').read_text().replace(str(tiny_data), 'data/coco'))
    assert leave(tools.train, [str(config)]) == 1
    assert re.search(r'train_dataloader\b.*data/coco/annotations\.json', capsys.readouterr().err)
    tools.train([str(config), '--data-root', str(tiny_data), '--work-dir', 'moved'])
    assert (folder / 'moved' / 'epoch_1.pth').is_file()


def test_as_a_command_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), 'nowhere.py']
    environment = {**os.environ, 'PYTHONPATH': python_path()}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert re.match(r'train\.py: error: .*config.* nowhere\.py', done.stderr.splitlines()[-1])
