"""The wheel: what it holds, its command, and the example of docs/custom_head.md, from folders outside the checkout."""

import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

import mmrope
from mmrope.datasets.digits import make_digits

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / 'docs' / 'custom_head'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of the checkout's own builds gets in."""
    source, out = tmp_path_factory.mktemp('source') / 'mmrope', tmp_path_factory.mktemp('wheel')
    for name in ('mmrope', 'configs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(out), '.']
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (path,) = out.glob('mmrope-*.whl')
    return path


def test_the_wheel_holds_the_package_and_the_configs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / 'mmrope').rglob('*.py'):
        assert str(path.relative_to(ROOT)) in names
    assert 'mmrope/py.typed' in names
    files = [*(ROOT / 'configs').rglob('*.py'), ROOT / 'configs' / 'metafile.yml']
    configs = {f'mmrope/.mim/{path.relative_to(ROOT)}' for path in files}
    assert configs == {name for name in names if name.startswith('mmrope/.mim/')}
    assert {name.partition('/')[0].partition('-')[0] for name in names} == {'mmrope'}


@pytest.fixture(scope='module')
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in; other packages are this environment's."""
    folder = tmp_path_factory.mktemp('installed')
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', str(folder), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return folder


def run_in(folder: Path, *command: str, path: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with others before the packages of this environment."""
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, path)), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_recipes_of_the_wheel_resolve_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    recipes = sorted((tmp_path / 'mmrope/.mim/configs/_base_/recipes').glob('*.py'))
    assert [path.name for path in recipes] == sorted(
        path.name for path in (ROOT / 'configs/_base_/recipes').glob('*.py')
    )
    for path in recipes:
        assert {'model', 'test_dataloader', 'default_scope'} <= set(Config.fromfile(path))


def test_config_path_names_configs_of_the_checkout() -> None:
    path = mmrope.config_path('_base_/backbones/rope_mixed_vit_b.py')
    assert Config.fromfile(path).backbone.type == 'mmrope.RoPEViT'
    assert mmrope.config_path('_base_/backbones/rope_mixed_vit_b') == path
    near = r"got '_base_/backbones/rope_mixed_vit_bb.py'; near it: _base_/backbones/rope_mixed_vit_b.py(, \S+){2}$"
    with pytest.raises(FileNotFoundError, match=near):
        mmrope.config_path('_base_/backbones/rope_mixed_vit_bb.py')


def test_the_command_of_the_wheel_says_what_it_can(installed: Path, tmp_path: Path) -> None:
    mmrope_command = str(installed / 'bin' / 'mmrope')
    for arguments, words in ((['--help'], 'train a detector'), (['train', '--help'], 'CONFIG')):
        done = run_in(tmp_path, mmrope_command, *arguments, path=(installed,))
        assert done.returncode == 0 and words in done.stdout, done.stderr
    done = run_in(tmp_path, mmrope_command, 'trian', path=(installed,))
    assert done.returncode == 2 and 'trian' in done.stderr


@pytest.mark.slow
def test_the_command_of_the_wheel_makes_data_trains_and_tests_in_the_current_folder(
    installed: Path, tmp_path: Path
) -> None:
    name = 'mask_rcnn_rope_mixed_vit_tiny_digits'

    def mmrope_command(*arguments: str) -> None:
        done = run_in(tmp_path, str(installed / 'bin' / 'mmrope'), *arguments, path=(installed,))
        assert done.returncode == 0, done.stderr[-3000:]

    mmrope_command('digits', '--images', '4', '--val-images', '2')
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    mmrope_command('train', name, '--cfg-options', *options)
    work_dir = tmp_path / 'work_dirs' / name
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    mmrope_command('test', name, checkpoint, '--work-dir', 'tested')
    (metrics,) = (tmp_path / 'tested').glob('*/*.json')
    assert 'coco/segm_mAP' in json.loads(metrics.read_text())
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'work_dirs', 'tested'}


def test_a_head_of_ones_own_trains_with_the_installed_wheel_and_the_hosts_script(
    installed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'folder'
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns('__pycache__'))
    make_digits(folder / 'data' / 'digits', images=8, val_images=3, progress=False)

    where = 'import mmrope; print(mmrope.__file__, mmrope.config_path("_base_/default_runtime.py"))'
    done = run_in(folder, sys.executable, '-c', where, path=(installed, folder))
    assert all(word.startswith(str(installed)) for word in done.stdout.split()), done.stdout

    train = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'train.py'
    options = ['train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'default_hooks.logger.interval=1']
    command = [sys.executable, str(train), 'config.py', '--cfg-options', *options, 'train_dataloader.batch_size=2']
    done = run_in(folder, *command, path=(installed, folder))
    assert done.returncode == 0, done.stderr[-3000:]
    (scalars,) = (folder / 'work_dirs' / 'config').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [math.isfinite(record['loss']) for record in records if 'loss' in record] == [True] * 4
    assert any('mIoU' in record for record in records)


def test_no_installed_package_takes_the_place_of_the_tests() -> None:
    """model-index, which MMPreTrain needs, installs its own tests as the package `tests`."""
    for name in ('tests', 'tests.helpers', 'tests.helpers.tiny'):
        assert (ROOT / 'tests') in Path(import_module(name).__file__).parents, name
