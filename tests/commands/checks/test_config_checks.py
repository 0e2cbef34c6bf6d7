"""Mistakes in a config and missing files are named before anything is built."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmrope.commands.checks.config import (
    CommandError,
    check_checkpoint,
    check_data,
    check_optimizer,
    check_options,
    datasets_of,
    set_data_root,
)
from mmrope.commands.runner import prepare_training


def make_config(root: str = 'data/coco/', **extra: Any) -> Config:
    """A config as its file leaves it: variables beside the parts that copied them."""
    dataset = dict(type='CocoDataset', data_root=root, ann_file='train.json', data_prefix=dict(img='images/'))
    dataset['metainfo'] = dict(classes=('box',))
    test = dict(dataset, ann_file='val.json', test_mode=True)
    evaluator = dict(type='CocoMetric', ann_file=f'{root}val.json', metric=['bbox', 'segm'])
    optimizer = dict(type='AdamW', lr=1e-4)
    return Config(
        dict(
            data_root=root,
            optimizer=optimizer,
            max_epochs=12,
            model=dict(type='MaskRCNN', backbone=dict(type='ResNet', depth=18, init_cfg=None), in_channels=3),
            train_dataloader=dict(batch_size=2, dataset=dict(type='RepeatDataset', times=2, dataset=dataset)),
            val_dataloader=dict(batch_size=1, dataset=test),
            test_dataloader=dict(batch_size=1, dataset=test),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            val_evaluator=evaluator,
            test_evaluator=[evaluator],
            param_scheduler=[dict(type='LinearLR', end=500), dict(type='MultiStepLR', milestones=[8, 11])],
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=optimizer, paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)})
            ),
            **extra,
        )
    )


@pytest.mark.parametrize(
    'path',
    [
        'train_dataloader.batch_size',
        'param_scheduler.1.milestones',
        'optim_wrapper.clip_grad.max_norm',  # new, and so is its parent
        'model.backbone.norm_eval',  # an argument that the config leaves at its default
        'model.num_channels',  # resembles `in_channels`, as the next three resemble other keys
        'model.backbon.depth',
        'train_cfg.max_epoch',
        'param_scheduler.1.milestone',
        'optim_wrapper.paramwise_cfg.custom_keys.norm1.decay_mult',  # the user's own key
        'randomness.seed',  # an argument of the runner that this config does not have
        'work_dir',
        'find_unused_parameters',
        'default_hooks.checkpoint.interval',
    ],
)
def test_an_option_that_can_be_meant_passes(path: str) -> None:
    check_options(make_config(), {path: 1})


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        ('train_dataloder.batch_size', ["'train_dataloder'", 'did you mean train_dataloader']),
        ('nonsense', ["unknown config key 'nonsense'"]),
        ('data_root', ['--data-root DIR']),
        ('optimizer.lr', ['optimizer is a variable', 'set the keys made from it']),
        ('max_epochs', ['max_epochs is a variable']),
        ('train_cfg.max_epochs.value', ["<class 'int'>"]),
        ('model.backbone.init_cfg.checkpoint', ["<class 'NoneType'>"]),
        ('val_evaluator.metric.1', ['MMEngine cannot set it']),  # an item that is no dict
        ('param_scheduler.2.end', ['Index 2 exceeds']),
        ('param_scheduler.end', ['list indices must be integers']),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(path: str, words: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        check_options(make_config(), {'train_dataloader.batch_size': 4, path: 1})
    for word in [f'--cfg-options {path}: ', *words]:
        assert word in str(caught.value)
    assert '\n' not in str(caught.value)


def test_an_optimizer_that_does_not_exist_is_named() -> None:
    cfg = make_config()
    check_optimizer(cfg)
    check_optimizer(Config(dict(model=dict(type='OnlyTested'))))
    cfg.optim_wrapper.optimizer.type = 'AdamV'
    with pytest.raises(CommandError, match='AdamV; did you mean Adam'):
        check_optimizer(cfg)


@pytest.mark.parametrize('rank, checks', [('0', True), ('1', False)])
@pytest.mark.parametrize('launcher, variable', [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'), ('none', 'NONE')])
def test_one_process_checks_the_data(
    launcher: str, variable: str, rank: str, checks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process of a launcher prepares the training."""
    monkeypatch.setenv(variable, rank)
    cfg = make_config('missing/', launcher=launcher)
    with pytest.raises(CommandError, match='missing') if checks or launcher == 'none' else nullcontext():
        prepare_training(cfg)


def make_data(root: Path) -> None:
    (root / 'images').mkdir(parents=True)
    (root / 'images' / 'a.png').write_bytes(b'a file')
    box = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 8, 8], area=64, iscrowd=0)
    image = dict(id=1, file_name='a.png', width=8, height=8)
    coco = dict(images=[image], annotations=[box], categories=[dict(id=1, name='box')])
    for name in ('train.json', 'val.json'):
        (root / name).write_text(json.dumps(coco))


def test_a_complete_data_set_passes(tmp_path: Path) -> None:
    make_data(tmp_path)
    check_data(make_config(f'{tmp_path}/'), ('train', 'val', 'test'))


@pytest.mark.parametrize(
    ('missing', 'stages', 'reader'),
    [
        ('train.json', ('train', 'val'), 'train_dataloader'),
        ('val.json', ('train', 'val'), 'val_dataloader'),
        ('images', ('test',), 'test_dataloader'),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, missing: str, stages: tuple[str, ...], reader: str) -> None:
    make_data(tmp_path)
    (tmp_path / missing).rename(tmp_path / 'elsewhere')
    with pytest.raises(
        CommandError, match=f'{reader} reads {tmp_path}/{missing}/?, which does not exist.*--data-root DIR'
    ):
        check_data(make_config(f'{tmp_path}/'), stages)


def test_a_missing_file_of_an_evaluator_is_named(tmp_path: Path) -> None:
    make_data(tmp_path)
    cfg = make_config(f'{tmp_path}/')
    cfg.test_evaluator[0].ann_file = f'{tmp_path}/other.json'
    check_data(cfg, ('train', 'val'))
    with pytest.raises(CommandError, match='test_evaluator reads .*other.json'):
        check_data(cfg, ('test',))


def test_a_single_folder_of_images_is_looked_for(tmp_path: Path) -> None:
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='images')
    cfg = Config(dict(test_dataloader=dict(dataset=dataset), test_cfg=dict()))
    with pytest.raises(CommandError, match=f'test_dataloader reads {tmp_path}/images, which does not exist'):
        check_data(cfg, ('test',))
    make_data(tmp_path)
    check_data(cfg, ('test',))


def test_files_that_a_run_does_not_read_may_be_missing(tmp_path: Path) -> None:
    make_data(tmp_path)
    cfg = make_config(f'{tmp_path}/')
    (tmp_path / 'val.json').unlink()
    check_data(cfg, ('train',))
    cfg.val_cfg = None
    check_data(cfg, ('train', 'val'))


def test_files_of_other_machines_are_not_looked_for() -> None:
    cfg = make_config('s3://bucket/coco/')
    check_data(cfg, ('train', 'val', 'test'))
    cfg = make_config('coco/')
    for dataset in (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset, cfg.val_evaluator):
        dataset.backend_args = dict(backend='petrel')
    check_data(cfg, ('train', 'val'))


def test_the_digits_come_with_the_command_that_makes_them() -> None:
    with pytest.raises(CommandError, match='`mmrope digits`'):
        check_data(make_config('data/digits/'), ('train',))
    with pytest.raises(CommandError, match='`mmrope digits --single`'):
        check_data(make_config('data/single_digits/'), ('train',))
    with pytest.raises(CommandError, match='--data-root'):
        check_data(make_config('/digits/coco/'), ('train',))


def test_data_sets_are_found_below_all_wrappers() -> None:
    first, second = dict(type='A'), dict(type='B')
    repeated = dict(type='RepeatDataset', dataset=first)
    joined = dict(type='ConcatDataset', datasets=[repeated, second])
    mixed = dict(type='MultiImageMixDataset', dataset=joined, pipeline=[])
    assert list(datasets_of(mixed)) == [first, second]


@pytest.mark.parametrize('old', ['data/coco/', 'data/coco', './data/coco/'])
def test_the_data_root_is_replaced_in_loaders_and_evaluators(tmp_path: Path, old: str) -> None:
    make_data(tmp_path)
    cfg = make_config(old if old.endswith('/') else old + '/')
    cfg.val_dataloader.dataset.data_root = old
    set_data_root(cfg, str(tmp_path))
    check_data(cfg, ('train', 'val', 'test'))
    assert cfg.train_dataloader.dataset.dataset.data_root == str(tmp_path)
    assert cfg.test_evaluator[0].ann_file == f'{tmp_path}/val.json'
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'train.json'


def test_a_data_root_replaces_no_other_folder(tmp_path: Path) -> None:
    cfg = make_config('data/coco/')
    cfg.test_evaluator[0].outfile_prefix = 'data/coco_results/test'
    set_data_root(cfg, str(tmp_path))
    assert cfg.test_evaluator[0].outfile_prefix == 'data/coco_results/test'


def test_a_data_root_needs_a_folder_and_one_root_to_replace(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match='there is no folder nowhere'):
        set_data_root(make_config(), 'nowhere')
    cfg = make_config()
    cfg.val_dataloader.dataset.data_root = 'data/lvis/'
    with pytest.raises(CommandError, match='this one has 2'):
        set_data_root(cfg, str(tmp_path))


def test_only_a_checkpoint_of_this_machine_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').write_bytes(b'')
    elsewhere = ('https://example.org/a.pth', 'torchvision://resnet18', 'hf-hub:owner/name')
    for path in (None, str(tmp_path / 'a.pth'), *elsewhere):
        check_checkpoint(path, '--resume')
    with pytest.raises(CommandError, match=r'--resume: there is no checkpoint .*b\.pth'):
        check_checkpoint(str(tmp_path / 'b.pth'), '--resume')
    with pytest.raises(CommandError, match=f'--resume: {tmp_path} is a folder'):
        check_checkpoint(str(tmp_path), '--resume')
