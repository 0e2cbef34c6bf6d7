"""Configs at full size, nothing overridden but data paths, weights, batch size, length and how often to log."""

import fcntl
import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from mmrope.datasets.digits import make_digits
from tests.helpers.tiny import ROOT

ITERATIONS = 3


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One of these tests at a time, in whatever process: each needs up to 14 GiB."""
    with (tmp_path_factory.getbasetemp().parent / 'full_size.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file releases it
        yield


@pytest.fixture(scope='module')
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at the size of COCO's images, in its folders, as the first ten of its classes; none of the others."""
    made, root = tmp_path_factory.mktemp('made') / 'digits', tmp_path_factory.mktemp('coco')
    make_digits(made, images=8, val_images=2, size=(480, 640), progress=False)
    (root / 'annotations').mkdir()
    for split, name in (('training', 'train2017'), ('validation', 'val2017')):
        (made / 'images' / split).rename(root / name)
        table = json.loads((made / f'annotations/instances_{split}.json').read_text())
        ids = [category['id'] for category in table['categories']]
        classes = CocoDataset.METAINFO['classes']
        ids += range(max(ids) + 1, max(ids) + 1 + len(classes) - len(ids))
        table['categories'] = [dict(id=i, name=name) for i, name in zip(ids, classes, strict=True)]
        (root / f'annotations/instances_{name}.json').write_text(json.dumps(table))
    return root


@pytest.fixture(scope='module')
def ade20k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at the size of ADE20k's images, as JPEG in its folders; its first eleven classes."""
    root = tmp_path_factory.mktemp('ade') / 'digits'
    make_digits(root, images=4, val_images=2, size=(512, 683), progress=False)
    for path in (root / 'images').rglob('*.png'):
        Image.open(path).save(path.with_suffix('.jpg'))
    return root


def finite_losses(work_dir: Path) -> list[float]:
    scalars = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    losses = [entry['loss'] for entry in map(json.loads, scalars.read_text().splitlines()) if 'loss' in entry]
    assert all(math.isfinite(loss) for loss in losses)
    return losses


def train(config: str, work_dir: Path, data: Path, *options: str, script: str = 'tools/train.py') -> list[float]:
    """Train with a tool, in two processes if it is a script of torchrun's; returns the losses."""
    if script.endswith('.sh'):
        command = ['env', f'PYTHON={sys.executable}', 'bash', script, config, '2']
    else:
        command = [sys.executable, script, config]
    command += ['--work-dir', str(work_dir), '--data-root', str(data), '--cfg-options', *options]
    command += ['default_hooks.logger.interval=1', 'model.backbone.init_cfg=None']  # no downloads in tests
    # A file: after a process is killed, its loaders would keep a pipe open for ever.
    with (work_dir / 'said.txt').open('w') as said:
        done = subprocess.run(command, cwd=ROOT, stdout=said, stderr=said, check=False)
    assert done.returncode == 0, (work_dir / 'said.txt').read_text()[-3000:]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f'largest process so far: {peak:.1f} GiB')
    return finite_losses(work_dir)


@pytest.mark.slow
@pytest.mark.parametrize('script', ['tools/train.py', 'tools/dist_train.sh'])
def test_vit_b_mask_rcnn_trains_at_1024(script: str, coco: Path, tmp_path: Path) -> None:
    config = 'configs/mask_rcnn_rope_mixed_vit_b_coco.py'
    options = [f'train_cfg.max_iters={ITERATIONS}', 'train_dataloader.batch_size=1']
    assert len(train(config, tmp_path, coco, *options, script=script)) == ITERATIONS
    assert (tmp_path / f'iter_{ITERATIONS}.pth').is_file()


@pytest.mark.slow
def test_swin_t_mask_rcnn_trains_an_epoch_at_800(coco: Path, tmp_path: Path) -> None:
    """Eight images in batches of 2, and the validation after them."""
    config = 'configs/mask_rcnn_rope_mixed_swin_t_coco.py'
    assert len(train(config, tmp_path, coco, 'train_cfg.max_epochs=1')) == 4
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.slow
def test_vit_b_upernet_trains_at_512(ade20k: Path, tmp_path: Path) -> None:
    config = 'configs/upernet_rope_mixed_vit_b_ade20k.py'
    assert len(train(config, tmp_path, ade20k, f'train_cfg.max_iters={ITERATIONS}')) == ITERATIONS
    assert (tmp_path / f'iter_{ITERATIONS}.pth').is_file()
