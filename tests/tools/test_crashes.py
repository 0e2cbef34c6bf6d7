"""Trainings that are killed, interrupted or run out of disk, and what they are when they go on."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mmrope.checkpoints.loading import load_checkpoint
from tests.helpers.crashes import same
from tests.helpers.tiny import ROOT, isolated, load_tool, python_path

BACKBONE = """
model['backbone'] = dict(type='mmrope.RoPEViT', arch=dict(embed_dims=16, depth=2, num_heads=2), drop_path_rate=0.5)
model['decode_head']['in_channels'] = 16
"""
AUGMENTED = """
train_dataloader['dataset'] = dict(dataset, pipeline=[
    pipeline[0], pipeline[1], dict(type='RandomCrop', crop_size=(48, 48)), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), pipeline[2]])
"""
WORKERS = 'train_dataloader.update(num_workers=2, persistent_workers={})\n'
ASPECT = """
train_dataloader['batch_sampler'] = dict(type='AspectRatioBatchSampler')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
default_hooks['checkpoint'].update(by_epoch=False, interval=1)
"""
EPOCHS = "train_cfg['max_epochs'] = 3\n"
NO_SEED = 'randomness = dict(seed=None)\n'
ITERATIONS = "train_cfg['max_iters'] = 5\ndefault_hooks['checkpoint']['interval'] = 1\n"
SEGMENTER = BACKBONE + AUGMENTED + ITERATIONS
# kind, what is appended to its config, the checkpoint to go on from, the last
TRAININGS = {
    'epochs': ('detection', EPOCHS, 'epoch_1.pth', 'epoch_3.pth'),
    'epochs, workers': ('detection', EPOCHS + WORKERS.format(False), 'epoch_1.pth', 'epoch_3.pth'),
    'epochs, persistent workers': ('detection', EPOCHS + WORKERS.format(True), 'epoch_2.pth', 'epoch_3.pth'),
    'iterations by aspect ratio': ('detection', ASPECT, 'iter_3.pth', 'iter_4.pth'),
    'iterations by aspect ratio, workers': ('detection', ASPECT + WORKERS.format(True), 'iter_2.pth', 'iter_4.pth'),
    'iterations': ('segmentation', SEGMENTER, 'iter_3.pth', 'iter_5.pth'),
    'iterations, workers': ('segmentation', SEGMENTER + WORKERS.format(True), 'iter_2.pth', 'iter_5.pth'),
}
SAMPLE = ('iterations by aspect ratio, workers', 'iterations')


def extended(write_config: Callable[..., str], folder: Path, kind: str, lines: str) -> str:
    """Write a config with more lines at its end."""
    config = Path(write_config(folder, kind))
    config.write_text(config.read_text() + lines)
    return str(config)


def train(*arguments: str) -> None:
    with isolated():
        load_tool('train').main(list(arguments))


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow) for name in TRAININGS]
)
def test_a_resumed_training_ends_with_the_same_bits(
    name: str, write_config: Callable[..., str], tmp_path: Path
) -> None:
    """Without a seed in the config, so that of the checkpoint has to reach samplers, workers and augmentations."""
    kind, lines, middle, last = TRAININGS[name]
    config = extended(write_config, tmp_path, kind, lines + NO_SEED)
    train(config, '--work-dir', str(tmp_path / 'whole'))
    (tmp_path / 'resumed').mkdir()
    shutil.copy(tmp_path / 'whole' / middle, tmp_path / 'resumed')
    train(config, '--work-dir', str(tmp_path / 'resumed'), '--resume')
    whole, resumed = (load_checkpoint(tmp_path / folder / last) for folder in ('whole', 'resumed'))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert same(whole[part], resumed[part]), part
    middle_state = load_checkpoint(tmp_path / 'whole' / middle)['state_dict']
    assert not same(middle_state, whole['state_dict'])
    one, two = (load['message_hub']['log_scalars']['train/loss'].data[0] for load in (whole, resumed))
    assert one.tolist() == two.tolist()


def run_crashes(config: str, folder: Path, kills: int) -> dict[str, int]:
    command = [sys.executable, str(ROOT / 'tests' / 'helpers' / 'crashes.py'), config, str(folder), str(kills), '0']
    environment = {**os.environ, 'PYTHONPATH': python_path(), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # the figures, for pytest -s
    return json.loads(done.stdout.splitlines()[-1])


MANY_ITERATIONS = (
    BACKBONE
    + AUGMENTED
    + """
train_cfg.update(max_iters={}, val_interval=50)
default_hooks['checkpoint'].update(interval=1, max_keep_ckpts=1)
"""
)
MANY_EPOCHS = """
train_cfg.update(max_epochs=60, val_interval=20)
default_hooks['checkpoint'].update(max_keep_ckpts=2)
"""


@pytest.mark.parametrize(
    ('kind', 'lines', 'kills'),
    [
        pytest.param('segmentation', MANY_ITERATIONS.format(16), 3, id='sample'),
        pytest.param(
            'segmentation',
            MANY_ITERATIONS.format(150) + WORKERS.format(True),
            20,
            marks=pytest.mark.slow,
            id='iterations',
        ),
        pytest.param('detection', MANY_EPOCHS, 20, marks=pytest.mark.slow, id='epochs'),
    ],
)
def test_a_training_survives_being_killed(
    kind: str, lines: str, kills: int, write_config: Callable[..., str], tmp_path: Path
) -> None:
    report = run_crashes(extended(write_config, tmp_path, kind, lines), tmp_path, kills)
    assert report['kills'] == kills
    assert report['cut_short'] == 0
    assert report['part_files'] == 0
    assert len(set(report['iterations'])) == 1
    assert report['same']


def test_a_checkpoint_cut_short_is_passed_over(
    write_config: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = extended(write_config, tmp_path, 'segmentation', SEGMENTER)
    folder = tmp_path / 'work'
    train(config, '--work-dir', str(folder))
    whole = load_checkpoint(folder / 'iter_5.pth')
    os.truncate(folder / 'iter_5.pth', (folder / 'iter_5.pth').stat().st_size // 2)
    damaged = bytearray((folder / 'iter_4.pth').read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / 'iter_4.pth').write_bytes(damaged)
    os.utime(folder / 'iter_4.pth', (0, (folder / 'iter_3.pth').stat().st_mtime + 1))
    capfd.readouterr()
    train(config, '--work-dir', str(folder), '--resume')
    said = ''.join(capfd.readouterr())
    assert [len(re.findall(rf'\b{name}\.pth\b.*\bcut\b', said)) for name in ('iter_5', 'iter_4')] == [1, 1]
    assert 'resumed epoch: 0, iter: 3' in said
    assert same(whole['state_dict'], load_checkpoint(folder / 'iter_5.pth')['state_dict'])
    for path in folder.glob('*.pth'):
        path.write_bytes(b'')
    with pytest.raises(SystemExit):
        train(config, '--work-dir', str(folder), '--resume')
    assert re.search(rf'no checkpoint.* {folder}\b.*\b5\b', capfd.readouterr().err)


def start(config: str, folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start tools/train.py with ``--resume``."""
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), config, '--work-dir', str(folder), '--resume']
    environment = {**os.environ, 'PYTHONPATH': python_path(), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_full_disk_leaves_the_last_checkpoint(write_config: Callable[..., str], tmp_path: Path) -> None:
    """Files may not grow beyond the half of a checkpoint, so that the log still can be written."""
    config = extended(write_config, tmp_path, 'segmentation', SEGMENTER)
    folder = tmp_path / 'work'
    train(config, '--work-dir', str(folder))
    for name in ('iter_4.pth', 'iter_5.pth'):
        (folder / name).unlink()
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_3.pth'))
    before = (folder / 'iter_3.pth').read_bytes()
    limit = len(before) // 2
    full = start(
        config, folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    )
    _, errors = full.communicate()
    assert full.returncode == 1
    file = rf"\[Errno 27\] File too large: '{folder}/iter_4\.pth'"
    assert re.match(rf'train\.py: error: OSError: {file}.*--traceback.*--resume', errors.splitlines()[-1])
    assert (folder / 'iter_3.pth').read_bytes() == before
    assert not list(folder.glob('*.part')) and not (folder / 'iter_4.pth').exists()
    train(config, '--work-dir', str(folder), '--resume')
    assert load_checkpoint(folder / 'iter_5.pth')['meta']['iter'] == 5


def test_ctrl_c_ends_in_one_sentence_and_can_go_on(write_config: Callable[..., str], tmp_path: Path) -> None:
    lines = MANY_ITERATIONS.format(100000) + WORKERS.format(True)
    config = extended(write_config, tmp_path, 'segmentation', lines)
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored by what a shell starts in the background
    process = start(config, tmp_path / 'work', start_new_session=True, preexec_fn=heed)
    for line in process.stdout:
        if 'Saving checkpoint at 3 iterations' in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith('train.py: interrupted')
    assert 'Traceback' not in errors
    last = load_checkpoint((tmp_path / 'work' / 'last_checkpoint').read_text())['meta']['iter']
    options = (f'train_cfg.max_iters={last + 1}', 'default_hooks.checkpoint.max_keep_ckpts=-1')
    train(config, '--work-dir', str(tmp_path / 'work'), '--resume', '--cfg-options', *options)
    assert load_checkpoint(tmp_path / 'work' / f'iter_{last + 1}.pth')['meta']['iter'] == last + 1
