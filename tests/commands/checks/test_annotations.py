"""COCO annotations: faults that MMDetection meets late or never are named before a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as mask_utils

from mmrope.commands.checks import annotations
from mmrope.commands.checks.annotations import Reading, check_categories, check_coco
from mmrope.commands.checks.config import CommandError, check_data
from mmrope.commands.checks.files import DataError

# A good data set passes without a warning.
pytestmark = pytest.mark.filterwarnings('error:.*reads:UserWarning')

CLASSES = ('cat', 'dog')
POLYGON = [[1.0, 1.0, 21.0, 1.0, 21.0, 11.0]]


def make_coco(images: int = 4, **ann: Any) -> dict[str, Any]:
    """Images of 64 x 48, each with a box of either category."""
    listed = [dict(id=i, file_name=f'{i}.png', width=64, height=48) for i in range(1, images + 1)]
    box = dict(bbox=[1, 1, 20, 10], area=100, iscrowd=0, segmentation=POLYGON) | ann
    anns = [dict(box, id=10 * i + c, image_id=i, category_id=c) for i in range(1, images + 1) for c in (1, 2)]
    return dict(images=listed, annotations=anns, categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])


def write(root: Path, coco: dict[str, Any], name: str = 'a.json') -> str:
    (root / name).write_text(json.dumps(coco))
    return str(root / name)


def refused(path: str, words: str, **reading: Any) -> None:
    with pytest.raises(DataError, match=words) as caught:
        check_coco(path, Reading(**{'classes': CLASSES, 'masks': 'all', **reading}))
    assert '\n' not in str(caught.value)


def config(root: Path, stage: str = 'train', **dataset: Any) -> Config:
    dataset = {
        'type': 'CocoDataset', 'data_root': str(root), 'ann_file': 'a.json', 'data_prefix': dict(img='images'),
        'metainfo': dict(classes=CLASSES), 'pipeline': [dict(type='LoadImageFromFile'),
                                                        dict(type='LoadAnnotations', with_mask=True)],
        'test_mode': stage != 'train', **dataset,
    }  # fmt: skip
    return Config({'default_scope': 'mmdet', f'{stage}_dataloader': dict(dataset=dataset), f'{stage}_cfg': dict()})


def photos(root: Path, orientation: int | None = None, size: tuple[int, int] = (64, 48), count: int = 4) -> None:
    (root / 'images').mkdir(exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    for i in range(1, count + 1):
        Image.new('RGB', size).save(root / 'images' / f'{i}.png', exif=exif)
        Image.new('RGB', size).save(root / 'images' / f'{i}.jpg', exif=exif)


def listed_by_host(cfg: Config) -> list[dict[str, Any]]:
    """The list that MMDetection makes of the data set."""
    from mmdet.datasets import CocoDataset

    dataset = dict(cfg.train_dataloader.dataset, pipeline=[], serialize_data=False)
    dataset.pop('type')
    listing = CocoDataset(**dataset, lazy_init=True)
    listing.full_init()
    return listing.data_list


# Broken annotations; tests/test_bad_input.py has the other kinds.


def test_broken_annotations_are_counted_with_a_few_ids_and_the_first_value(tmp_path: Path) -> None:
    coco = make_coco(images=50)
    for ann in coco['annotations'][:50]:
        ann['bbox'] = [1, 2, 3]
    coco['annotations'][50]['area'] = '100'
    coco['annotations'][51]['segmentation'] = dict(size=[4, 6], counts=[9, 5])
    path = write(tmp_path, coco)
    refused(path, r'52 broken .*: 50 with .*\(expected 4, got 3\) \(id 11, 12, 21, \.\.\. \(50\); .*\[1, 2, 3\]')
    refused(path, r"; 1 with .*'str' and 'int' \(id 261; .* '100'.*; 1 with .* counts .*\(id 262; .* \[4, 6\]")


def test_annotations_that_the_host_does_not_read_may_be_broken(tmp_path: Path) -> None:
    """A mask of a class that is not taken, and an annotation that is marked to be ignored."""
    coco = make_coco()
    coco['annotations'][1].update(segmentation=[])
    coco['annotations'][3].update(ignore=1, segmentation=[])
    photos(tmp_path)
    write(tmp_path, coco)
    cfg = config(tmp_path, metainfo=dict(classes=('cat',)))
    check_data(cfg, ('train',))
    assert all('mask' in box for info in listed_by_host(cfg) for box in info['instances'])


def test_training_needs_no_iscrowd_and_a_metric_does(tmp_path: Path) -> None:
    coco = make_coco()
    for ann in coco['annotations']:
        del ann['iscrowd']
    path = write(tmp_path, coco)
    check_coco(path, Reading(CLASSES))
    assert [box['ignore_flag'] for info in listed_by_host(config(tmp_path)) for box in info['instances']] == [0] * 8
    refused(path, r'8 with no iscrowd \(id 11, 12', training=False)


# Categories: names, order, and the remedy.


def test_a_category_name_twice_is_named_with_its_ids(tmp_path: Path) -> None:
    coco = make_coco()
    coco['categories'] += [dict(id=7, name='dog'), dict(id=8, name='unused'), dict(id=9, name='unused')]
    path = write(tmp_path, coco)
    refused(path, 'dog: ids 2, 7')
    check_coco(path, Reading(('cat',)))


def test_missing_classes_come_with_the_line_to_write(tmp_path: Path) -> None:
    words = r"person.*metainfo=dict\(classes=\('cat', 'dog'\)\)"
    refused(write(tmp_path, make_coco()), words, classes=['person'])


def test_the_advice_for_another_order_leads_to_the_right_labels(tmp_path: Path) -> None:
    """Sorting the categories of the file, with their ids, gives each box the label of its class; nothing else does."""
    coco = make_coco()
    coco['categories'].reverse()
    path = write(tmp_path, coco)
    refused(path, r'another order .*from 0 on, .*dog, cat .*cat, dog; sort the list "categories" in the file')
    labels = {box['bbox_label'] for info in listed_by_host(config(tmp_path)) for box in info['instances'][:1]}
    assert labels == {1}  # that of dog, for cats
    coco['categories'].sort(key=lambda category: CLASSES.index(category['name']))
    check_coco(write(tmp_path, coco), Reading(CLASSES))
    labels = {box['bbox_label'] for info in listed_by_host(config(tmp_path)) for box in info['instances'][:1]}
    assert labels == {0}


def test_an_order_that_differs_late_is_shown_from_there(tmp_path: Path) -> None:
    names = [f'c{i}' for i in range(80)]
    coco = make_coco()
    coco['categories'] = [dict(id=i, name=name) for i, name in enumerate(names)]
    refused(
        write(tmp_path, coco), 'from 60 on, .*c60, c61, .*c61, c60, ', classes=[*names[:60], 'c61', 'c60', *names[62:]]
    )


@pytest.mark.parametrize('largest', [0, 2**20])
def test_the_file_of_a_metric_has_its_categories_in_order_too(
    tmp_path: Path, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotations, 'LARGEST_PARSED', largest)
    photos(tmp_path)
    write(tmp_path, make_coco())
    other = make_coco()
    other['categories'].reverse()
    path = write(tmp_path, other, 'b.json')
    with pytest.raises(DataError, match='in another order'):
        check_categories(path, CLASSES)
    cfg = config(tmp_path, 'val')
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=path)
    with pytest.raises(CommandError, match=r'val_evaluator reads .*b\.json, .*another order'):
        check_data(cfg, ('val',))


# Is there anything to learn from?


def test_crowds_alone_are_nothing_to_learn_from_and_many_are_a_warning(tmp_path: Path) -> None:
    coco = make_coco(iscrowd=1)
    assert 'all boxes are marked iscrowd=1' in check_coco(write(tmp_path, coco), Reading(CLASSES))[1]
    coco['annotations'][0]['iscrowd'] = 0
    path = write(tmp_path, coco)
    (note,), nothing = check_coco(path, Reading(CLASSES))
    assert nothing is None and note.startswith('7 of 8 boxes are marked iscrowd=1')
    assert check_coco(path, Reading(CLASSES, training=False)) == ([], None)  # a metric uses them
    coco = make_coco()
    coco['annotations'][0]['iscrowd'] = 1
    assert check_coco(write(tmp_path, coco), Reading(CLASSES)) == ([], None)


def test_crowds_alone_are_found_in_a_large_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, 'LARGEST_PARSED', 0)
    assert 'iscrowd=1' in check_coco(write(tmp_path, make_coco(iscrowd=1)), Reading(CLASSES)).nothing
    assert check_coco(write(tmp_path, make_coco()), Reading(CLASSES)) == ([], None)


def test_a_large_file_may_hold_lists_of_objects_in_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, 'LARGEST_PARSED', 0)
    coco = make_coco()
    coco['images'][0]['tags'] = [dict(name='night')]
    assert check_coco(write(tmp_path, coco), Reading(CLASSES)) == ([], None)


def test_masks_that_polygons_leave_out_are_nothing_to_learn_from(tmp_path: Path) -> None:
    path = write(tmp_path, make_coco(segmentation=dict(size=[48, 64], counts=[48 * 64])))
    assert '8 masks are no polygons, which poly2mask=False' in check_coco(path, Reading(CLASSES, masks='polygons'))[1]
    assert check_coco(path, Reading(CLASSES, masks='all')) == ([], None)


FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    'too small': (dict(min_size=64), "'min_size': 64"),
    'without annotations': (dict(filter_empty_gt=True), "'filter_empty_gt': True"),
    'either': (dict(min_size=50, filter_empty_gt=True), "'min_size': 50, 'filter_empty_gt': True"),
}


@pytest.mark.parametrize('case', FILTERS)
def test_a_filter_that_leaves_no_image_is_named_with_its_value(case: str, tmp_path: Path) -> None:
    rules, words = FILTERS[case]
    coco = make_coco()
    if 'filter_empty_gt' in rules:
        for ann in coco['annotations']:
            ann['category_id'] = 3
        coco['categories'].append(dict(id=3, name='cow'))
    path = write(tmp_path, coco)
    assert listed_by_host(config(tmp_path, filter_cfg=rules)) == []
    refused(path, f'4 images, of which filter_cfg={{{words}}} leaves none', filter_cfg=rules)


def test_a_filter_counts_only_where_the_data_set_uses_it(tmp_path: Path) -> None:
    from mmdet.datasets import CocoDataset

    class Kept(CocoDataset):
        def filter_data(self) -> list[dict]:
            return self.data_list

    write(tmp_path, make_coco())
    photos(tmp_path)
    with pytest.raises(CommandError, match=r'a\.json, which has 4 images, of which filter_cfg=.* leaves none'):
        check_data(config(tmp_path, filter_cfg=dict(min_size=64)), ('train',))
    check_data(config(tmp_path, filter_cfg=dict(min_size=64), type=Kept), ('train',))
    check_data(config(tmp_path, filter_cfg=dict(min_size=64), test_mode=True), ('train',))
    check_data(config(tmp_path, filter_cfg=dict(min_size=48, filter_empty_gt=True)), ('train',))


def test_the_images_that_a_filter_keeps_must_have_a_box(tmp_path: Path) -> None:
    coco = make_coco(images=2)
    coco['images'][0].update(width=20, height=20)
    coco['annotations'] = coco['annotations'][:2]
    assert check_coco(write(tmp_path, coco), Reading(CLASSES, filter_cfg=dict(min_size=32))).nothing


def test_backgrounds_are_right_beside_another_data_set_and_wrong_alone(tmp_path: Path) -> None:
    write(tmp_path, {**make_coco(), 'annotations': []})
    write(tmp_path, make_coco(), 'b.json')
    photos(tmp_path)
    cfg = config(tmp_path)
    with pytest.raises(CommandError, match=r'a\.json, which has no annotations'):
        check_data(cfg, ('train',))
    first = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, dict(first, ann_file='b.json')])
    with pytest.warns(UserWarning, match=r'a\.json, which has no annotations'):
        check_data(cfg, ('train',))
    cfg = config(tmp_path, 'val')
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'a.json'))
    with pytest.warns(UserWarning, match=r'a\.json, which has no annotations .*: the metrics'):
        check_data(cfg, ('val',))


# Sizes of image, annotation and mask.


def jpegs(coco: dict[str, Any]) -> dict[str, Any]:
    for image in coco['images']:
        image['file_name'] = image['file_name'].replace('png', 'jpg')
    return coco


def test_photos_that_exif_turns_are_refused_where_they_are_annotated_as_stored(tmp_path: Path) -> None:
    photos(tmp_path, 6)
    write(tmp_path, jpegs(make_coco(bbox=[40, 10, 20, 20])))
    words = r'4 images \(of 4 checked\) .*1\.jpg: read as 48 x 64, but 64 x 48 in its annotations; EXIF turns it'
    with pytest.raises(CommandError, match=f'{words}.*color_type="color_ignore_orientation"'):
        check_data(config(tmp_path), ('train',))
    unturned = [dict(type='LoadImageFromFile', color_type='color_ignore_orientation'), dict(type='LoadAnnotations')]
    check_data(config(tmp_path, pipeline=unturned), ('train',))
    photos(tmp_path, 6, size=(48, 64))  # annotated as they are shown
    check_data(config(tmp_path), ('train',))


def test_many_photos_are_decoded_only_until_it_is_known_that_they_are_turned(tmp_path: Path) -> None:
    photos(tmp_path, 6, count=20)
    path = write(tmp_path, jpegs(make_coco(images=20, bbox=[40, 10, 20, 20])))
    decoded = []
    read = lambda path: decoded.append(path) or (48, 64)  # noqa: E731
    refused(path, r'20 images \(of 20 checked\)', images=str(tmp_path / 'images'), read=read)
    assert len(decoded) == 10


@pytest.mark.parametrize('size, read', [((32, 24), '32 x 24'), ((128, 96), '128 x 96')])
def test_boxes_that_fit_into_an_image_of_another_size_are_a_warning(
    tmp_path: Path, size: tuple[int, int], read: str
) -> None:
    photos(tmp_path, None, size)
    write(tmp_path, make_coco())
    with pytest.warns(UserWarning, match=f'read as {read}, but 64 x 48 in its annotations'):
        check_data(config(tmp_path), ('train',))


def run_lengths(width: int, height: int) -> dict[str, Any]:
    mask = mask_utils.encode(np.asfortranarray(np.ones((height, width), np.uint8)))
    return dict(size=mask['size'], counts=mask['counts'].decode())


def test_masks_of_another_size_than_their_image_are_refused(tmp_path: Path) -> None:
    photos(tmp_path)
    write(tmp_path, make_coco(segmentation=run_lengths(48, 64)))
    with pytest.raises(CommandError, match=r'8 masks of another size .*: ids 11, 12, 21, .*48 x 64'):
        check_data(config(tmp_path), ('train',))
    Image.new('RGB', (48, 64)).save(tmp_path / 'images' / '1.png')  # an image of another size hides no mask of others
    with pytest.raises(CommandError, match=r'6 masks of another size .*: ids 21, 22, 31, .*48 x 64'):
        check_data(config(tmp_path), ('train',))
    photos(tmp_path)
    write(tmp_path, make_coco(segmentation=run_lengths(64, 48)))
    check_data(config(tmp_path), ('train',))


def test_masks_must_fit_the_image_and_not_the_size_in_the_file(tmp_path: Path) -> None:
    """The host reads the image's own size."""
    photos(tmp_path, None, (48, 64))
    words = 'read as 48 x 64, but 64 x 48 in its annotations'
    write(tmp_path, make_coco(segmentation=run_lengths(48, 64)))
    with pytest.warns(UserWarning, match=words):
        check_data(config(tmp_path), ('train',))
    write(tmp_path, make_coco(segmentation=run_lengths(64, 48)))
    with pytest.raises(CommandError, match=words):
        check_data(config(tmp_path), ('train',))


def test_a_subclass_is_checked_as_its_base_unless_it_reads_by_rules_of_its_own(tmp_path: Path) -> None:
    from mmdet.datasets import CocoDataset

    class Fruits(CocoDataset):
        METAINFO = dict(classes=CLASSES)

    class Others(Fruits):
        def load_data_list(self) -> list[dict]:
            return []

    coco = make_coco()
    del coco['annotations'][0]['area']
    write(tmp_path, coco)
    with pytest.raises(CommandError, match=r'no area \(id 11;'):
        check_data(config(tmp_path, type=Fruits, metainfo=None, data_prefix=dict(img='')), ('train',))
    check_data(config(tmp_path, type=Others, metainfo=None, data_prefix=dict(img='')), ('train',))
