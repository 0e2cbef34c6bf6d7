"""The shell scripts: what they call, and that two processes on a CPU train, test and report as one does."""

import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmrope import RoPEViT
from mmrope.checkpoints.loading import load_checkpoint
from mmrope.commands.runner import has_accelerator
from tests.helpers.hub import Hub
from tests.helpers.tiny import IMAGES, ROOT, isolated, load_tool, python_path

TOOLS = ROOT / 'tools'
TwoProcesses = tuple[str, Path, Callable[..., subprocess.CompletedProcess[str]]]
SCRIPTS = ('dist_train', 'dist_test', 'slurm_train', 'slurm_test')
# what the scripts read
KNOWN = {
    'NNODES',
    'NODE_RANK',
    'PORT',
    'MASTER_ADDR',
    'GPUS',
    'GPUS_PER_NODE',
    'CPUS_PER_TASK',
    'SRUN_ARGS',
    'PYTHON',
}


def call(script: str, arguments: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script from a folder, with a clean environment."""
    environment = {key: value for key, value in os.environ.items() if key not in KNOWN} | variables
    command = [str(TOOLS / f'{script}.sh'), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """Stand-ins for srun and python, which write down their arguments, one on a line."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in ('srun', 'python'):
        stub = folder / name
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        stub.chmod(0o755)
    return {'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}'}


def dist_command(tool: str, *arguments: str, nnodes: str = '1', rank: str = '0', port: str = '29500') -> list[str]:
    return [
        'python',
        '-m',
        'torch.distributed.run',
        f'--nnodes={nnodes}',
        f'--node_rank={rank}',
        '--master_addr=127.0.0.1',
        f'--master_port={port}',
        '--nproc_per_node=2',
        str(TOOLS / tool),
        *arguments,
    ]


def srun_command(gpus: str, per_node: str, cpus: str, *arguments: str) -> list[str]:
    return [
        'srun',
        '-p',
        'part',
        '--job-name=job',
        f'--gres=gpu:{per_node}',
        f'--ntasks={gpus}',
        f'--ntasks-per-node={per_node}',
        f'--cpus-per-task={cpus}',
        '--kill-on-bad-exit=1',
        *arguments,
    ]


CALLS: dict[str, tuple[str, list[str], Mapping[str, str], list[str]]] = {
    'dist_train': (
        'dist_train',
        ['a b.py', '2', '--amp', '--work-dir', 'c d'],
        {},
        dist_command('train.py', 'a b.py', '--launcher', 'pytorch', '--amp', '--work-dir', 'c d'),
    ),
    'dist_train on nodes': (
        'dist_train',
        ['a.py', '2'],
        {'NNODES': '4', 'NODE_RANK': '3', 'PORT': '29501'},
        dist_command('train.py', 'a.py', '--launcher', 'pytorch', nnodes='4', rank='3', port='29501'),
    ),
    'dist_test': (
        'dist_test',
        ['a.py', 'b c.pth', '2', '--tta'],
        {},
        dist_command('test.py', 'a.py', 'b c.pth', '--launcher', 'pytorch', '--tta'),
    ),
    'slurm_train': (
        'slurm_train',
        ['part', 'job', 'a b.py', 'work dir', '--cfg-options', 'a="[1, 2]"'],
        {},
        srun_command(
            *('8', '8', '5', 'python', '-u', str(TOOLS / 'train.py'), 'a b.py', '--work-dir', 'work dir'),
            *('--launcher', 'slurm', '--cfg-options', 'a="[1, 2]"'),
        ),
    ),
    'slurm_test': (
        'slurm_test',
        ['part', 'job', 'a.py', 'b.pth'],
        {'GPUS': '4', 'GPUS_PER_NODE': '2', 'CPUS_PER_TASK': '3', 'SRUN_ARGS': '--qos=high --mem 8G'},
        srun_command(
            *('4', '2', '3', '--qos=high', '--mem', '8G', 'python', '-u', str(TOOLS / 'test.py'), 'a.py', 'b.pth'),
            *('--launcher', 'slurm'),
        ),
    ),
}


@pytest.mark.parametrize('name', CALLS)
def test_the_command_of_a_script(name: str, tmp_path: Path, stubs: dict[str, str]) -> None:
    script, arguments, variables, expected = CALLS[name]
    done = call(script, arguments, tmp_path, **stubs, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize('script', ['slurm_train', 'slurm_test'])
def test_srun_gets_the_environment_unchanged(script: str, tmp_path: Path, stubs: dict[str, str]) -> None:
    """srun hands it on to the processes; the scripts add nothing to it and take nothing away."""
    srun = tmp_path / 'bin' / 'srun'
    srun.write_text('#!/bin/sh\nenv\n')
    done = call(script, ['part', 'job', 'a.py', 'b'], tmp_path, **stubs, MASTER_PORT='29511', GPUS='2', MINE='a b')
    assert done.returncode == 0, done.stderr
    added = {'_', 'PWD', 'OLDPWD', 'SHLVL'}  # by the shells
    seen = dict(line.partition('=')[::2] for line in done.stdout.splitlines() if '=' in line)
    clean = {key: value for key, value in os.environ.items() if '\n' not in value and key not in KNOWN}
    expected = {**clean, **stubs, 'MASTER_PORT': '29511', 'GPUS': '2', 'MINE': 'a b'}
    assert seen['MINE'] == 'a b'
    assert seen.keys() - added == expected.keys() - added
    assert all(seen[key] == expected[key] for key in expected.keys() - added)


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        *((script, ['only_one']) for script in SCRIPTS),
        ('dist_train', ['a.py', '--amp']),
        ('dist_test', ['a.py', 'a.pth', '--tta']),
    ],
)
def test_a_script_says_what_it_needs(script: str, arguments: list[str], tmp_path: Path, stubs: dict[str, str]) -> None:
    done = call(script, arguments, tmp_path, **stubs)
    assert done.returncode == 2
    assert done.stderr.startswith('usage: ')
    assert f'{script}.sh ' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ''


@pytest.fixture(scope='module')
def on_two_cpus(write_config: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> TwoProcesses:
    """A config, a folder, and a function that runs a script there as two processes without an accelerator."""
    folder = tmp_path_factory.mktemp('two')
    return write_config(folder, 'detection'), folder, in_folder(folder)


def in_folder(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a script in a folder as processes without an accelerator."""
    environment = {
        'PYTHONPATH': python_path(),
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
    }

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return call(script, list(arguments), folder, **{'PORT': _free_port(), **environment, **variables})

    return run


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope='module')
def checkpoint(on_two_cpus: TwoProcesses) -> Path:
    """Trained by two processes."""
    config, folder, run = on_two_cpus
    done = run('dist_train', config, '2', '--work-dir', str(folder / 'trained'))
    assert done.returncode == 0, done.stderr
    assert len(re.findall('WARNING.*AmpOptimWrapper', done.stdout)) == 1  # rank 0 alone speaks
    return folder / 'trained' / 'epoch_1.pth'


def test_two_processes_share_the_training(checkpoint: Path) -> None:
    """5 images twice are 10 samples: 5 batches of 2 for one process, 3 for each of two (the last is filled up)."""
    assert load_checkpoint(checkpoint)['meta']['iter'] == 3


@pytest.mark.skipif(has_accelerator(), reason='one process would compute elsewhere than the two')
def test_two_processes_measure_what_one_does(on_two_cpus: TwoProcesses, checkpoint: Path) -> None:
    config, folder, run = on_two_cpus
    done = run('dist_test', config, str(checkpoint), '2', '--work-dir', str(folder / 'by_two'), '--out', 'two.pkl')
    assert done.returncode == 0, done.stderr
    with isolated():
        load_tool('test').main(
            [config, str(checkpoint), '--work-dir', str(folder / 'by_one'), '--out', str(folder / 'one.pkl')]
        )
    two, one = (_boxes_by_image(folder / name) for name in ('two.pkl', 'one.pkl'))
    assert two.keys() == one.keys() == set(range(IMAGES))
    for image in one:
        assert two[image] == pytest.approx(one[image], abs=1e-3)
    two_maps, one_maps = (_metrics(folder / name) for name in ('by_two', 'by_one'))
    assert two_maps == one_maps
    assert one_maps['coco/bbox_mAP'] > 0


def _boxes_by_image(path: Path) -> dict[int, list[float]]:
    predictions = pickle.loads(path.read_bytes())
    assert len(predictions) == IMAGES
    return {sample['img_id']: sample['pred_instances']['bboxes'].flatten().tolist() for sample in predictions}


def _metrics(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob('*/*.json')
    return {key: value for key, value in json.loads(path.read_text()).items() if 'mAP' in key or 'mIoU' in key}


@pytest.mark.slow
@pytest.mark.skipif(has_accelerator(), reason='one process would compute elsewhere than the two')
def test_two_processes_measure_the_miou_that_one_does(write_config: Callable[..., str], tmp_path: Path) -> None:
    """On an odd number of images, of which the sampler repeats one."""
    config = write_config(tmp_path, 'segmentation')
    checkpoint = str(tmp_path / 'trained' / 'iter_2.pth')
    with isolated():
        load_tool('train').main([config, '--work-dir', str(tmp_path / 'trained')])
    with isolated():
        load_tool('test').main([config, checkpoint, '--work-dir', str(tmp_path / 'by_one')])
    done = in_folder(tmp_path)('dist_test', config, checkpoint, '2', '--work-dir', str(tmp_path / 'by_two'))
    assert done.returncode == 0, done.stderr
    one, two = _metrics(tmp_path / 'by_one'), _metrics(tmp_path / 'by_two')
    assert one == two and one['mIoU'] > 0


def on_two_nodes(folder: Path, script: str, *arguments: str) -> None:
    """Run a script once as each of two nodes, with a process each."""
    port = _free_port()
    with ThreadPoolExecutor() as pool:
        nodes = [
            pool.submit(in_folder(folder), script, *arguments, NNODES='2', NODE_RANK=str(rank), PORT=port)
            for rank in range(2)
        ]
    for node in nodes:
        assert node.result().returncode == 0, node.result().stderr


@pytest.mark.slow
def test_two_nodes_train_what_two_processes_do(on_two_cpus: TwoProcesses, checkpoint: Path) -> None:
    config, folder, _ = on_two_cpus
    on_two_nodes(folder, 'dist_train', config, '1', '--work-dir', 'by_nodes')
    one, two = (load_checkpoint(path)['state_dict'] for path in (checkpoint, folder / 'by_nodes' / 'epoch_1.pth'))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
@pytest.mark.skipif(has_accelerator(), reason='one process would compute elsewhere than the two')
def test_two_nodes_measure_what_one_process_does(on_two_cpus: TwoProcesses, checkpoint: Path) -> None:
    config, folder, _ = on_two_cpus
    on_two_nodes(folder, 'dist_test', config, str(checkpoint), '1', '--work-dir', 'nodes_tested')
    with isolated():
        load_tool('test').main([config, str(checkpoint), '--work-dir', str(folder / 'one_tested')])
    assert _metrics(folder / 'nodes_tested') == _metrics(folder / 'one_tested')


@pytest.mark.skipif(has_accelerator(), reason='one process would compute elsewhere than the two')
def test_two_processes_train_what_one_does_with_their_batches(
    write_config: Callable[..., str], tmp_path: Path, close: Callable[..., None]
) -> None:
    """SyncBN apart, which needs an accelerator: a RoPE ViT with a head that has no norm, and no dropout."""
    config = Path(write_config(tmp_path, 'segmentation'))
    config.write_text(config.read_text() + ROPE_SEGMENTER)
    done = in_folder(tmp_path)('dist_train', str(config), '2', '--work-dir', 'two')
    assert done.returncode == 0, done.stderr
    with isolated():
        options = ('--cfg-options', 'train_dataloader.batch_size=4')
        load_tool('train').main([str(config), '--work-dir', str(tmp_path / 'one'), *options])
    one, two = (load_checkpoint(tmp_path / name / 'iter_6.pth') for name in ('one', 'two'))
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for key, value in one['state_dict'].items():
        close(two['state_dict'][key], value)
    losses = [torch.tensor(run['message_hub']['log_scalars']['train/loss'].data[0]) for run in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 6  # of the two processes that of rank 0 alone: another half of a batch
    start = load_checkpoint(tmp_path / 'one' / 'iter_1.pth')['state_dict']
    assert max((one['state_dict'][key] - start[key]).abs().max() for key in start) > 1e-3


ROPE_SEGMENTER = """
model['backbone'] = dict(type='mmrope.RoPEViT', arch=dict(embed_dims=16, depth=2, num_heads=2), window_size=3)
model['decode_head'].update(in_channels=16, norm_cfg=None, dropout_ratio=0.0)
train_cfg['max_iters'] = 6
default_hooks['checkpoint']['interval'] = 1
optim_wrapper['optimizer']['lr'] = 0.1
"""


def test_a_mistake_is_a_sentence_and_torchrun_names_the_process(on_two_cpus: TwoProcesses) -> None:
    config, _, run = on_two_cpus
    done = run('dist_train', config, '2', '--cfg-options', 'train_dataloader.dataset.dataset.ann_file=none.json')
    assert done.returncode == 1
    assert re.search(r'^train\.py: error: .*train_dataloader\b.*none\.json', done.stderr, re.MULTILINE)
    assert 'local_rank' in done.stderr and 'exitcode' in done.stderr


def test_two_processes_download_weights_once_and_report_once(
    write_config: Callable[..., str], tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the weights, both processes end."""
    config = Path(write_config(tmp_path, 'segmentation'))
    init_cfg = dict(type='Pretrained', checkpoint='hf-hub:owner/tiny')
    backbone = dict(type='mmrope.RoPEViT', arch='tiny', init_cfg=init_cfg)
    config.write_text(
        f"{config.read_text()}\nmodel.update(backbone={backbone})\nmodel['decode_head']['in_channels']=128"
    )
    monkeypatch.setenv('HF_ENDPOINT', hub.url)
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'hub'))
    run = in_folder(tmp_path)
    done = run('dist_train', str(config), '2')
    assert done.returncode == 1
    assert re.search(f'hf-hub:owner/tiny.*{hub.url}.*owner/tiny.*HF_TOKEN', done.stderr)
    file = io.BytesIO()
    torch.save(RoPEViT('tiny').state_dict(), file)
    hub.files['owner/tiny', 'pytorch_model.bin'] = file.getvalue()
    done = run('dist_train', str(config), '2')
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r'hf-hub:owner/tiny.*RoPEViT.*\b92\b.*\b92\b', done.stdout)) == 1
    assert hub.downloads() == 1
