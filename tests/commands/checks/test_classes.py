"""Heads, data sets and checkpoints have the same classes, or an error says so before anything is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmrope.commands.checks.classes import (
    check_heads,
    classes_of_checkpoint,
    compare_classes,
    heads_of,
)
from mmrope.commands.checks.config import CommandError, check_classes_of_checkpoint, check_data
from mmrope.commands.checks.data import class_of, classes_of

CLASSES = ('cat', 'dog')


def make_coco(root: Path, name: str, categories: tuple[str, ...] = CLASSES) -> None:
    (root / 'images').mkdir(exist_ok=True)
    (root / 'images' / 'a.png').write_bytes(b'a file')
    box = dict(id=1, image_id=1, category_id=0, bbox=[0, 0, 8, 8], area=64, iscrowd=0)
    image = dict(id=1, file_name='a.png', width=8, height=8)
    listed = [dict(id=CLASSES.index(name) if name in CLASSES else 9, name=name) for name in categories]
    (root / name).write_text(json.dumps(dict(images=[image], annotations=[box], categories=listed)))


def make_config(root: Path, model: dict[str, Any], **classes: tuple[str, ...]) -> Config:
    """A config of a data set for each stage that is named, with its classes."""
    cfg: dict[str, Any] = dict(default_scope='mmdet', model=model)
    for stage, names in classes.items():
        make_coco(root, f'{stage}.json', names)
        dataset = dict(
            type='CocoDataset', data_root=str(root), ann_file=f'{stage}.json', data_prefix=dict(img='images'),
            metainfo=dict(classes=names), test_mode=stage != 'train',
        )  # fmt: skip
        wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[dataset]))
        cfg |= {f'{stage}_dataloader': dict(dataset=wrapped), f'{stage}_cfg': dict()}
    return Config(cfg)


def box_head(number: int) -> dict[str, Any]:
    return dict(type='Shared2FCBBoxHead', num_classes=number)


TWO_STAGES = dict(rpn_head=dict(type='RPNHead', num_classes=1), backbone=dict(type='ResNet', num_classes=1000))
PANOPTIC = dict(type='Mask2FormerHead', num_things_classes=3, num_stuff_classes=0)
MASKS, LISTED = dict(type='FCNMaskHead', num_classes=80), [dict(num_classes=150), dict(num_classes=2)]
HEADS: dict[str, tuple[dict[str, Any], str]] = {
    'box': (dict(roi_head=dict(bbox_head=box_head(10))), r'model\.roi_head\.bbox_head\.num_classes is 10'),
    'too few': (dict(roi_head=dict(bbox_head=box_head(1))), r'bbox_head\.num_classes is 1, but'),
    'mask': (dict(roi_head=dict(bbox_head=box_head(2), mask_head=MASKS)), r'^model\.roi_head\.mask_head\..* is 80,'),
    'cascade': (dict(roi_head=dict(bbox_head=[box_head(2), box_head(3)])), r'^model\..*bbox_head\.1\..* is 3,'),
    'one stage': (dict(bbox_head=dict(type='DINOHead', num_classes=80)), r'model\.bbox_head\.num_classes is 80'),
    'a default': (dict(roi_head=dict(bbox_head=dict(type='Shared2FCBBoxHead'))), r'bbox_head\.num_classes is 80'),
    'panoptic': (dict(panoptic_head=PANOPTIC), r'num_things_classes \+ num_stuff_classes is 3'),
    'EoMT': (dict(panoptic_head=dict(PANOPTIC, type='mmrope.heads.EoMTHead')), r'panoptic_head\.num_things.* is 3'),
    'augmented': (dict(module=dict(bbox_head=box_head(5))), r'^model\.bbox_head\.num_classes is 5'),
    'auxiliary': (dict(decode_head=dict(num_classes=150), auxiliary_head=LISTED),
                  r'decode_head\.num_classes is 150, model\.auxiliary_head\.0\.num_classes is 150, but'),
}  # fmt: skip


@pytest.mark.parametrize('case', HEADS)
def test_heads_of_another_number_of_classes_are_refused_with_both(case: str, tmp_path: Path) -> None:
    parts, words = HEADS[case]
    cfg = make_config(tmp_path, {**TWO_STAGES, **parts}, train=CLASSES)
    with pytest.raises(CommandError, match=rf'({words}).*train_dataloader has 2 classes \(cat, dog\)') as caught:
        check_data(cfg, ('train', 'val'))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'parts',
    [
        dict(roi_head=dict(bbox_head=box_head(2), mask_head=dict(num_classes=80, class_agnostic=True))),
        dict(bbox_head=dict(num_classes=2), semantic_head=dict(num_classes=183), segm_head=dict(num_classes=80)),
        dict(decode_head=dict(num_classes=2), auxiliary_head=dict(type='STDCHead', num_classes=1)),
        dict(panoptic_head=dict(PANOPTIC, num_things_classes=1, num_stuff_classes=1)),
        dict(roi_head=dict(type='StandardRoIHead'), neck=dict(num_classes=3)),
    ],
)
def test_heads_that_tell_something_else_apart_pass(parts: dict[str, Any], tmp_path: Path) -> None:
    check_data(make_config(tmp_path, {**TWO_STAGES, **parts}, train=CLASSES, val=CLASSES), ('train', 'val'))


def test_heads_may_tell_the_things_of_a_panoptic_data_set_apart() -> None:
    dataset = dict(type='CocoPanopticDataset', metainfo=dict(classes=('cat', 'sky'), thing_classes=('cat',)))
    model = dict(roi_head=dict(bbox_head=box_head(1)))
    cfg = dict(default_scope='mmdet', model=model, train_dataloader=dict(dataset=dataset), train_cfg=dict())
    check_data(Config(cfg), ('train',))
    model['roi_head']['bbox_head']['num_classes'] = 3
    with pytest.raises(CommandError, match='num_classes is 3, but train_dataloader has 2 classes'):
        check_data(Config(cfg), ('train',))


def test_a_validation_set_of_other_classes_than_the_training_set_is_refused(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, {}, train=CLASSES, val=('cat', 'dog', 'cow'))
    with pytest.raises(CommandError, match=r'train_.* 2 classes \(cat, dog\), but val_.* 3 classes \(cat, dog, cow\)'):
        check_data(cfg, ('train', 'val'))
    cfg = make_config(tmp_path, {}, train=CLASSES, val=CLASSES[::-1])
    with pytest.raises(CommandError, match=r'\(cat, dog\), but .*\(dog, cat\), in another order: class 0 is cat in'):
        check_data(cfg, ('train', 'val'))


def test_as_many_classes_of_other_names_are_a_warning() -> None:
    names = [f'class {i}' for i in range(80)]
    renamed = [*names[:60], 'another', *names[61:]]
    note = compare_classes(('A', names), ('B', renamed))
    assert 'class 60 is class 60 in the one and another in the other' in note
    assert compare_classes(('A', names), ('B', tuple(names))) is None


def test_classes_come_from_the_class_of_a_data_set_too(tmp_path: Path) -> None:
    cfg = dict(default_scope='mmseg', train_dataloader=dict(dataset=dict(type='ADE20KDataset')), train_cfg=dict())
    cfg['model'] = dict(decode_head=dict(num_classes=19))
    with pytest.raises(CommandError, match=r'num_classes is 19, but train_dataloader has 150 classes \(wall, '):
        check_data(Config(cfg), ('train',))
    (tmp_path / 'names.txt').write_text('wall\nsky\n')
    cfg['train_dataloader']['dataset']['metainfo'] = dict(classes=str(tmp_path / 'names.txt'))
    with pytest.raises(CommandError, match=r'num_classes is 19, but train_dataloader has 2 classes \(wall, sky\)'):
        check_data(Config(cfg), ('train',))


def test_folders_are_the_classes_of_a_classification_set(tmp_path: Path) -> None:
    for name in ('a', 'b', 'c'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset), train_cfg=dict()))
    cfg.model = dict(head=dict(type='LinearClsHead', num_classes=2))
    with pytest.raises(CommandError, match=r'num_classes is 2, but train_dataloader has 3 classes \(a, b, c\)'):
        check_data(cfg, ('train',))
    cfg.model.head.num_classes = 1000  # outputs that nothing uses
    check_data(cfg, ('train',))


@pytest.mark.parametrize('recipe', ['dino', 'imagenet', 'mask2former', 'mask_rcnn', 'upernet'])
def test_heads_of_our_configs_have_the_classes_of_their_data(recipe: str) -> None:
    path = next((Path(__file__).parents[3] / 'configs').glob(f'{recipe}_rope_mixed_*_[bs]*.py'))
    cfg = Config.fromfile(str(path))
    dataset, heads = cfg.val_dataloader.dataset, heads_of(cfg.model, cfg.default_scope)
    classes = classes_of(dataset, class_of(dataset, cfg.default_scope))
    assert heads and len(classes) > 1
    check_heads(heads, [len(classes)], recipe)


def save(path: Path, meta: dict[str, Any]) -> str:
    torch.save(dict(meta=meta, state_dict=dict(weight=torch.zeros(3))), path)
    return str(path)


@pytest.mark.parametrize(
    'meta', [dict(dataset_meta=dict(classes=('dog', 'cat'))), dict(dataset_meta=dict(CLASSES=['dog', 'cat'])),
             dict(CLASSES=('dog', 'cat'))], ids=str,
)  # fmt: skip
def test_a_checkpoint_of_other_classes_is_refused_in_a_test(meta: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / 'a.pth', meta)
    cfg = make_config(tmp_path, {}, test=CLASSES)
    with pytest.raises(CommandError, match=r'a\.pth has 2 classes \(dog, cat\), but test_dataloader .*\(cat, dog\)'):
        check_classes_of_checkpoint(cfg, path)
    save(tmp_path / 'a.pth', dict(dataset_meta=dict(classes=('cat',))))
    with pytest.raises(CommandError, match='has 1 class .cat., but test_dataloader has 2 classes'):
        check_classes_of_checkpoint(cfg, path)
    save(tmp_path / 'a.pth', dict(dataset_meta=dict(classes=['cat', 'dog'])))
    check_classes_of_checkpoint(cfg, path)


def test_a_checkpoint_that_names_no_classes_has_none(tmp_path: Path) -> None:
    torch.save(dict(weight=torch.zeros(3)), tmp_path / 'weights.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(dict(meta=dict(classes=CLASSES)), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    (tmp_path / 'none.pth').write_bytes(b'no checkpoint')
    for name in ('weights.pth', 'list.pth', 'old.pth', 'none.pth', save(tmp_path / 'empty.pth', dict(epoch=1))):
        assert classes_of_checkpoint(str(tmp_path / name)) is None
    check_classes_of_checkpoint(make_config(tmp_path, {}, test=CLASSES), 'https://example.org/a.pth')


@pytest.mark.parametrize('part', ['dataloader', 'evaluator'])
def test_panoptic_segments_without_their_package_are_a_sentence(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make_config(tmp_path, {}, val=CLASSES)
    if part == 'dataloader':
        cfg.val_dataloader.dataset.dataset.datasets[0].pipeline = [dict(type='LoadPanopticAnnotations')]
    else:
        cfg.val_evaluator = dict(type='CocoPanopticMetric')
    monkeypatch.setattr('mmrope.commands.checks.config.find_spec', lambda name: None)
    with pytest.raises(CommandError, match=rf'val_{part} reads panoptic .*: pip install git\+https://github\.com/coco'):
        check_data(cfg, ('val',))
    monkeypatch.setattr('mmrope.commands.checks.config.find_spec', lambda name: name)
    check_data(cfg, ('val',))
