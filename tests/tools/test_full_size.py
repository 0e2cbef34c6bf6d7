"""The COCO configs at full size, with nothing overridden but data paths, batch size and the number of iterations."""

import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from tiny import ROOT

from mmrope.datasets.digits import make_digits

ITERATIONS = 3


@pytest.fixture(scope='module')
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at the size of COCO's images, in COCO's folders and under the names of its first ten classes."""
    made, root = tmp_path_factory.mktemp('made') / 'digits', tmp_path_factory.mktemp('coco')
    make_digits(made, images=8, val_images=2, size=(480, 640), progress=False)
    (root / 'annotations').mkdir()
    for split, name in (('training', 'train2017'), ('validation', 'val2017')):
        (made / 'images' / split).rename(root / name)
        table = json.loads((made / f'annotations/instances_{split}.json').read_text())
        for category, class_name in zip(table['categories'], CocoDataset.METAINFO['classes'], strict=False):
            category['name'] = class_name
        (root / f'annotations/instances_{name}.json').write_text(json.dumps(table))
    return root


def finite_losses(work_dir: Path) -> list[float]:
    scalars = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    losses = [entry['loss'] for entry in map(json.loads, scalars.read_text().splitlines()) if 'loss' in entry]
    assert all(math.isfinite(loss) for loss in losses)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('script', [['tools/train.py'], ['tools/dist_train.sh']], ids=['one process', 'two processes'])
def test_vit_b_trains_at_1024(script: list[str], coco: Path, tmp_path: Path) -> None:
    config = 'configs/mask_rcnn_rope_mixed_vit_b_coco.py'
    distributed = script[0].endswith('.sh')
    command = ['env', f'PYTHON={sys.executable}', 'bash', *script, config, '2'] if distributed else None
    command = command or [sys.executable, *script, config]
    options = [f'train_cfg.max_iters={ITERATIONS}', 'train_dataloader.batch_size=1', 'default_hooks.logger.interval=1']
    command += ['--work-dir', str(tmp_path), '--data-root', str(coco), '--cfg-options', *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(finite_losses(tmp_path)) == ITERATIONS
    assert (tmp_path / f'iter_{ITERATIONS}.pth').is_file()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f'largest process so far: {peak:.1f} GiB')
