"""`mmrope train CONFIG --data DIR`: a folder of somebody's data is trained, and the config that does it is written."""

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import MultiStepLR
from mmengine.registry import MODELS, DefaultScope

from mmrope.commands import train
from mmrope.commands.checks.data import steps_of
from mmrope.commands.cli import parse_pixels
from mmrope.commands.config import prepare_process
from mmrope.commands.errors import CommandError
from mmrope.commands.main import main
from mmrope.commands.models import build_model
from mmrope.commands.own_data import Choices, use_own_data, write_own_data
from tests.helpers import own_data
from tests.helpers.isolation import isolated
from tests.helpers.recipes import CONFIGS, configs
from tests.helpers.tiny import ROOT, python_path

ONE_PROCESS = [
    f'{part}_dataloader.{key}'
    for part in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]
SETS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    'instances': ('mask_rcnn_rope_mixed_swin_tiny_digits', own_data.instances),
    'exported': ('detection', own_data.exported),
    'single': ('mask_rcnn_rope_mixed_vit_tiny_digits', own_data.single),
    'colours': ('upernet_rope_mixed_vit_tiny_digits', lambda root: own_data.segmentation(root, 'flat', 'colours')),
    'palette': ('segmentation', lambda root: own_data.segmentation(root, 'folders', 'palette')),
}  # fmt: skip
BY_DEFAULT = ('exported', 'colours')


def losses(folder: Path) -> list[float]:
    (path,) = folder.glob('*/vis_data/scalars.json')
    return [line['loss'] for line in map(json.loads, path.read_text().splitlines()) if 'loss' in line]


@pytest.mark.parametrize(
    'name', [name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in SETS]
)
def test_a_folder_is_trained_and_tested_and_the_host_trains_its_config_to_the_same_losses(
    name: str, tmp_path: Path, write_config: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, make = SETS[name]
    make(tmp_path / 'data')
    if '_' not in config:
        config = write_config(tmp_path, config)
        text = Path(config).read_text().replace("type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16',", '')
        Path(config).write_text(text)  # the host's script needs a GPU for mixed precision
    options = ['--cfg-options', *ONE_PROCESS, 'default_hooks.logger.interval=1']
    command = ['train', config, '--data', 'data', '--epochs', '2', '--batch-size', '2']
    command += ['--size', '64'] if name != 'palette' else []  # whose config does not resize
    with isolated():
        main([*command, '--work-dir', 'work', *options])
    ours = losses(Path('work'))
    assert len(ours) >= 2 and all(loss > 0 for loss in ours)
    checkpoint = str(max(Path('work').glob('epoch_2.pth')))
    with isolated():
        main(['test', 'work/config.py', checkpoint, '--work-dir', 'tested'])
    (metrics,) = (json.loads(path.read_text()) for path in Path('tested').glob('*/*.json'))
    assert {'coco/bbox_mAP', 'mIoU'} & set(metrics)
    # The host's own script, with mmrope's seeds for each iteration.
    cfg = Config.fromfile('work/config.py')
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmrope.engine.seed_hook.SeedEachIteration')]
    cfg.dump('edited.py')
    host = 'mmseg' if 'mIoU' in metrics else 'mmdet'
    monkeypatch.setattr(sys, 'argv', ['train.py', 'edited.py', '--work-dir', 'theirs'])
    with isolated():
        runpy.run_path(str(files(host) / '.mim' / 'tools' / 'train.py'), run_name='__main__')
    assert losses(Path('theirs')) == pytest.approx(ours, rel=1e-6)


def adapted(name: str, root: Path, folder: Path, **choices: Any) -> tuple[Config, dict[str, str]]:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    made = use_own_data(cfg, str(root), folder, Choices(**choices))
    write_own_data(cfg, made, folder / 'config.py')
    return Config.fromfile(folder / 'config.py'), dict(made.rows)


def numbers(node: Any) -> list[int]:
    """Every num_classes below a part of a config."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    return [n for key, value in items for n in ([value] if key == 'num_classes' else numbers(value))]


DETECTORS = {'mask_rcnn': 2, 'faster_rcnn': 1, 'cascade_rcnn': 3, 'dino': 1}


@pytest.mark.parametrize('path', configs('*_coco.py'))
def test_every_detector_takes_somebodys_data(path: Path, tmp_path: Path) -> None:
    root = own_data.instances(tmp_path / 'data')
    cfg, rows = adapted(path.stem, root, tmp_path / 'work', epochs=4, size=parse_pixels('320'), batch_size=2)
    kind = re.split('_(?:rope|ape|rpb|eva02|lingbot|dinov3|pe_spatial)', path.stem)[0]
    assert numbers(cfg.model) == [2] * DETECTORS[kind]
    for stage, folder in (('train', 'train2017'), ('val', 'val2017'), ('test', 'val2017')):
        dataset = cfg[f'{stage}_dataloader'].dataset
        assert dataset.metainfo.classes == ('green', 'blue') and dataset.data_prefix.img == folder
        assert dataset.ann_file == f'annotations/instances_{folder}.json' and Path(dataset.data_root) == root
        if stage != 'train':
            assert cfg[f'{stage}_evaluator'].ann_file == str(root / dataset.ann_file)
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=kind != 'dino')
    assert cfg.train_cfg.max_epochs == 4 and cfg.param_scheduler[-1].end in (4, 12)
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=2 * counts)
    base = Config.fromfile(path)
    share = 2 * counts / base.auto_scale_lr.base_batch_size
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(base.optim_wrapper.optimizer.lr * share**0.5, rel=0.01)
    assert set(cfg) <= set(base) and 'max_iters' not in cfg and 'image_size' not in cfg  # no variables
    assert rows['data'].startswith(f'{root}: boxes and masks; 5 images to train on')


@pytest.mark.parametrize('path', configs('eomt_*_coco_instance.py'))
def test_every_eomt_of_instances_takes_somebodys_data(path: Path, tmp_path: Path) -> None:
    root = own_data.instances(tmp_path / 'data')
    cfg, rows = adapted(path.stem, root, tmp_path / 'work', epochs=4, size=parse_pixels('320'), batch_size=2)
    head = cfg.model.panoptic_head
    for part in (head, cfg.model.panoptic_fusion_head):
        assert (part.num_things_classes, part.num_stuff_classes) == (2, 0)
    pads = [step for step in steps_of(cfg.test_dataloader.dataset.pipeline) if step['type'] == 'Pad']
    assert [step['size'] for step in pads] == [(320, 320)]
    (schedule,) = cfg.param_scheduler
    assert schedule.end == 4 * 3 and sum(schedule.warmup) <= 1
    assert rows['num_classes'] == '2 in model.panoptic_head, model.panoptic_fusion_head'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        assert MODELS.build(cfg.model).panoptic_head.eomt.classes.out_features == 3


@pytest.mark.parametrize('path', configs('eomt_*_coco_panoptic.py'))
def test_panoptic_configs_name_those_for_instances(path: Path, tmp_path: Path) -> None:
    root = own_data.instances(tmp_path / 'data')
    with pytest.raises(CommandError, match=f'--data .* {path.stem} learns panoptic segments: take one of eomt_'):
        adapted(path.stem, root, tmp_path / 'work')


def test_class_weights_of_an_eomt_follow_if_a_config_has_them(tmp_path: Path) -> None:
    root = own_data.segmentation(tmp_path / 'data', 'folders', 'grey')
    cfg = Config.fromfile(CONFIGS / 'eomt_rope_mixed_vit_tiny_digits.py')
    cfg.model.decode_head.loss_cls = dict(type='mmdet.CrossEntropyLoss', class_weight=[1.0] * 11 + [0.2])
    use_own_data(cfg, str(root), tmp_path, Choices(size=parse_pixels('32')))
    assert cfg.model.decode_head.num_classes == 3
    assert cfg.model.decode_head.loss_cls.class_weight == [1.0, 1.0, 1.0, 0.2]


@pytest.mark.parametrize('path', configs('*_ade20k.py'))
def test_every_segmenter_takes_somebodys_data(path: Path, tmp_path: Path) -> None:
    root = own_data.segmentation(tmp_path / 'data', 'lists', 'colours')
    cfg, rows = adapted(path.stem, root, tmp_path / 'work', epochs=4, size=parse_pixels('128'))
    assert numbers(cfg.model) == [3] * (2 if path.stem.startswith('upernet') else 1)
    for stage, names in (('train', '012'), ('val', '34'), ('test', '34')):
        dataset = cfg[f'{stage}_dataloader'].dataset
        assert dataset.type == 'BaseSegDataset' and dataset.metainfo.classes == ('background', 'green', 'blue')
        assert Path(dataset.ann_file).read_text().split() == list(names)
        (step,) = [step for step in dataset.pipeline if step.type.endswith('LoadAnnotations')]
        assert step['values'] == (255, 0, 1, 2) and len(step.colours) == 4
        assert 'reduce_zero_label' not in step
    weights = cfg.model.decode_head.get('loss_cls', {}).get('class_weight')
    assert weights in (None, [1.0, 1.0, 1.0, 0.1])
    assert rows['class maps'] == '4 colours, of the classes 255, 0, 1, 2'
    assert 'LoadAnnotations' in cfg.tta_pipeline[1].transforms[2][0].type
    if path.stem.startswith('eomt'):
        assert cfg.model.test_cfg.crop_size == cfg.model.test_cfg.stride == (128, 128)


def test_class_weights_of_other_classes_are_not_kept(tmp_path: Path) -> None:
    root = own_data.segmentation(tmp_path / 'data', 'folders', 'grey')
    cfg, rows = adapted('upernet_rope_mixed_vit_tiny_digits', root, tmp_path / 'work')
    assert cfg.model.decode_head.loss_decode.class_weight is None
    assert rows['model.decode_head.loss_decode.class_weight'] == 'none: that of all is the same'
    assert cfg.train_cfg.max_epochs == 36 and cfg.optim_wrapper.optimizer.lr == 4e-3


@pytest.mark.parametrize(
    ('batch_size', 'drops', 'iterations'), [(2, True, 1), (3, True, 1), (4, False, 1), (1, True, 3)]
)
def test_a_segmenter_meets_no_last_batch_of_one_image(
    tmp_path: Path, batch_size: int, drops: bool, iterations: int
) -> None:
    """Batch norm behind a global pooling needs two; of fewer images than a batch all are taken."""
    root = own_data.segmentation(tmp_path / 'data', 'folders', 'grey')
    cfg, rows = adapted('upernet_rope_mixed_vit_b_ade20k', root, tmp_path / 'work', epochs=2, batch_size=batch_size)
    assert cfg.train_dataloader.drop_last == drops
    assert rows['length'].startswith(f'2 epochs of {iterations} iterations')


def test_a_split_is_written_beside_the_config_and_read_from_there(tmp_path: Path) -> None:
    root = own_data.single(tmp_path / 'data')
    cfg, _ = adapted('faster_rcnn_rope_mixed_swin_t_coco', root, tmp_path / 'work', val_fraction=0.4, split_seed=2)
    counted = []
    for stage in ('train', 'val'):
        dataset = cfg[f'{stage}_dataloader'].dataset
        assert Path(dataset.ann_file) == tmp_path / 'work' / f'{stage}.json' and dataset.data_prefix.img == ''
        counted.append(len(json.loads(Path(dataset.ann_file).read_text())['images']))
    assert counted == [3, 2] and cfg.val_evaluator.ann_file == str(tmp_path / 'work' / 'val.json')


@pytest.mark.parametrize(
    ('name', 'advice'),
    [
        ('mask_rcnn_rope_mixed_swin_t_coco', 'take faster_rcnn_rope_mixed_swin_t_coco, or one of faster_rcnn_'),
        ('mask_rcnn_rope_mixed_swin_tiny_digits', 'take one of faster_rcnn_'),
    ],
)
def test_masks_are_asked_for_with_the_config_that_needs_none(tmp_path: Path, name: str, advice: str) -> None:
    root = own_data.exported(tmp_path)
    with pytest.raises(CommandError, match=f'has boxes only, and {name} learns masks: {advice}'):
        use_own_data(Config.fromfile(CONFIGS / f'{name}.py'), str(root), tmp_path, Choices())


SGD = dict(type='SGD', lr=0.02)


@pytest.mark.parametrize(
    ('optimizer', 'processes', 'rate'), [(None, 1, 5e-5), (None, 4, 1e-4), (SGD, 1, 0.005), (SGD, 2, 0.01)]
)
def test_batch_and_rate_belong_together(tmp_path: Path, optimizer: dict | None, processes: int, rate: float) -> None:
    """Linear for SGD, by the square root for Adam; 16 images are the batch of the config."""
    root = own_data.instances(tmp_path)
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_rope_mixed_swin_t_coco.py')
    if optimizer:
        cfg.optim_wrapper.optimizer = optimizer
    use_own_data(cfg, str(root), tmp_path, Choices(batch_size=4, processes=processes))
    assert cfg.optim_wrapper.optimizer.lr == rate and cfg.auto_scale_lr.base_batch_size == 4 * processes


def test_parts_may_be_lists_classes_or_none(tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / 'faster_rcnn_rope_mixed_swin_t_coco.py')
    cfg.val_evaluator = [dict(type='DumpDetResults'), dict(cfg.val_evaluator, metric=['bbox', 'proposal'])]
    cfg.param_scheduler[1].type = MultiStepLR
    cfg.auto_scale_lr = None
    made = use_own_data(cfg, str(own_data.instances(tmp_path / 'data')), tmp_path, Choices(epochs=2))
    assert (cfg.val_evaluator.type, cfg.val_evaluator.metric) == ('CocoMetric', ['bbox', 'proposal'])
    assert [text.partition(',')[0] for name, text in made.rows if name == 'schedule'] == ['LinearLR', 'MultiStepLR']


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--epochs', '3'], '--epochs needs --data DIR'),
        (['--data', 'none'], '--data: there is no folder none'),
        (['--data', '.', '--data-root', '.'], '--data names the folder'),
        (['--data', '.', '--cfg-options', 'train_cfg.max_iters=9'], r'train_cfg\.max_iters.*--epochs'),
        (['--data', '.'], r'--data: \. has no COCO file to train on; the layouts are'),
    ],
)
def test_wrong_options_are_a_sentence(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit), isolated():
        main(['train', 'faster_rcnn_rope_mixed_swin_t_coco', *arguments])
    message = capsys.readouterr().err
    assert 'error: ' in message and re.search(words, message)


def test_a_mistake_in_an_annotation_is_a_sentence_with_its_id_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    path = own_data.instances(tmp_path / 'data') / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][3]['bbox'] = [1, 2, 3]
    path.write_text(json.dumps(content))
    monkeypatch.setattr('mmrope.commands.runner.build_runner', lambda *_, **__: pytest.fail('built'))
    with pytest.raises(SystemExit), isolated():
        main(['train', 'faster_rcnn_rope_mixed_swin_t_coco', '--data', 'data'])
    assert re.search(r'instances_train2017\.json, which .*\bid 3\b.*\bbbox\b', capsys.readouterr().err)


@pytest.mark.parametrize('box', [[1, 2, 3], ['1', '2', '3', '4'], [1, 2, None, 4]], ids=str)
def test_a_mistake_in_annotations_that_are_split_names_the_users_file(
    box: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    path = own_data.single(tmp_path / 'data') / 'result.json'
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        annotation['bbox'] = box
        annotation.pop('area', None)
    path.write_text(json.dumps(content))
    monkeypatch.setattr('mmrope.commands.runner.build_runner', lambda *_, **__: pytest.fail('built'))
    with pytest.raises(SystemExit), isolated():
        main(['train', 'faster_rcnn_rope_mixed_swin_t_coco', '--data', 'data'])
    message = capsys.readouterr().err
    assert re.search(r'data/result\.json, which .*\bid \d+\b.*\bbbox\b', message) and 'train.json' not in message


def test_the_first_process_alone_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_data.single(tmp_path / 'data')
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = ['faster_rcnn_rope_mixed_swin_t_coco', '--data', str(tmp_path / 'data'), '--launcher', 'pytorch']
    args = parser.parse_args(given)
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank in ('1', '0'):
        monkeypatch.setenv('RANK', rank)
        cfg = Config.fromfile(CONFIGS / 'faster_rcnn_rope_mixed_swin_t_coco.py')
        cfg.launcher, cfg.work_dir = 'pytorch', str(tmp_path / 'work')
        assert {path.name for path in train.adapt(cfg, args)} == {'train.json', 'val.json'}
        assert (tmp_path / 'work').exists() == (rank == '0')
    assert cfg.auto_scale_lr.base_batch_size == 4


@pytest.mark.parametrize('size', [448, 512, 640])
def test_a_recipe_takes_a_size_without_data_of_ones_own(tmp_path: Path, size: int) -> None:
    """ViTDet at smaller squares: pipelines, crop and padding; --cfg-options still come last."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    name = 'mask_rcnn_rope_mixed_vit_b_25e_8x4_accum2_coco'
    args = parser.parse_args([name, '--size', str(size), '--cfg-options', 'model.backbone.window_size=7'])
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    assert train.adapt(cfg, args) == {}
    steps = {step['type']: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResize']['scale'] == steps['RandomCrop']['crop_size'] == (size, size)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (size, size)
    assert cfg.model.data_preprocessor.pad_size_divisor == size and cfg.model.backbone.window_size == 7
    assert cfg.train_cfg.max_iters == 92188


def test_a_classifier_takes_no_size() -> None:
    name = 'classifier_rope_mixed_vit_tiny_single_digits'
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    with pytest.raises(CommandError, match='--size is for detectors and segmenters, .* mmpretrain'):
        train.adapt(cfg, parser.parse_args([name, '--size', '64']))


@pytest.mark.slow
def test_two_processes_train_on_somebodys_data(tmp_path: Path) -> None:
    """The split and the config are written once, and each process sees half of the images."""
    own_data.single(tmp_path / 'data')
    command = [
        'bash',
        str(ROOT / 'tools' / 'dist_train.sh'),
        'mask_rcnn_rope_mixed_vit_tiny_digits',
        '2',
        '--data',
        'data',
    ]
    command += ['--epochs', '1', '--batch-size', '1', '--size', '64', '--work-dir', 'work']
    command += ['--cfg-options', *ONE_PROCESS, 'default_hooks.logger.interval=1']
    port = str(20000 + os.getpid() % 20000)
    variables = {**os.environ, 'PYTHON': sys.executable, 'PORT': port, 'PYTHONPATH': python_path()}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in (tmp_path / 'work').iterdir() if path.suffix != '') >= [
        'config.py',
        'epoch_1.pth',
    ]
    assert done.stdout.count('can be changed') == 1
    assert len(losses(tmp_path / 'work')) == 2  # four images, two processes
    assert Config.fromfile(tmp_path / 'work' / 'config.py').auto_scale_lr.base_batch_size == 2


@pytest.mark.slow
def test_a_model_of_other_classes_is_where_the_next_training_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    name = 'mask_rcnn_rope_mixed_vit_tiny_digits'
    with isolated():
        prepare_process()
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        torch.save({'state_dict': build_model(cfg, 'cpu').state_dict()}, 'other.pth')
    own_data.instances(tmp_path / 'data')
    options = [*ONE_PROCESS, 'load_from=other.pth', 'model.backbone.init_cfg=None', 'optim_wrapper.optimizer.lr=0.0']
    with isolated():
        main(['train', name, '--data', 'data', '--epochs', '1', '--size', '64', '--work-dir', 'work',
              '--cfg-options', *options])  # fmt: skip
    old, new = (torch.load(path, weights_only=False)['state_dict'] for path in ('other.pth', 'work/epoch_1.pth'))
    counted = re.compile('running_|num_batches')  # batch norm follows the images at any rate
    changed = {
        key
        for key in old
        if not counted.search(key) and (old[key].shape != new[key].shape or not torch.equal(old[key], new[key]))
    }
    assert changed and all(re.search(r'fc_cls|fc_reg|conv_logits', key) for key in changed)
    assert 'size mismatch for roi_head.bbox_head.fc_cls.weight' in capsys.readouterr().out
