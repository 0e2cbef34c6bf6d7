"""Folders with COCO annotations become a data set, whatever tool wrote them; what is wrong is one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrope.datasets.coco_folders import part_of, read_coco_folder, split_names
from mmrope.datasets.digits import make_digits
from tests.helpers import own_data


@pytest.mark.parametrize(
    ('name', 'part'),
    [
        ('instances_train2017', 'train'), ('valid', 'val'), ('Validation', 'val'), ('my-test_set', 'test'),
        ('result', None), ('trained', None), ('training', 'train'),
    ],
)  # fmt: skip
def test_a_name_says_its_part(name: str, part: str | None) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize('number', [2, 3, 10, 11])
def test_a_split_is_repeatable_and_leaves_both_parts_something(number: int) -> None:
    names = [str(i) for i in range(number)]
    train, val = split_names(names, 0.2, 0)
    assert split_names(names[::-1], 0.2, 0) == (train, val)
    assert sorted(train + val) == sorted(names) and len(val) == max(1, round(0.2 * number)) and train
    assert number < 10 or split_names(names, 0.2, 1) != (train, val)


@pytest.mark.parametrize(('number', 'fraction', 'words'), [(1, 0.5, 'two images.*got 1'), (5, 0, 'above 0.*got 0')])
def test_nothing_to_split_is_an_error(number: int, fraction: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_names([str(i) for i in range(number)], fraction, 0)


def test_the_layout_of_coco(tmp_path: Path) -> None:
    data = read_coco_folder(own_data.instances(tmp_path))
    assert data.classes == ('green', 'blue') and data.masks and data.notes == ()
    train, val = data.parts['train'], data.parts['val']
    assert (train.names, train.learned, val.names) == (5, 5, 2) and list(data.parts) == ['train', 'val']
    assert train.file.endswith('annotations/instances_train2017.json') and train.content is None
    assert (train.images, val.images) == (str(tmp_path / 'train2017'), str(tmp_path / 'val2017'))


def test_annotations_inside_of_the_folders_of_images(tmp_path: Path) -> None:
    """The same file names in each part, and a root category, which is not a class."""
    data = read_coco_folder(own_data.exported(tmp_path))
    assert data.classes == ('green', 'blue') and not data.masks and data.unmasked == (16, 16)
    assert {part: Path(own.images).name for part, own in data.parts.items()} == {
        'train': 'train', 'val': 'valid', 'test': 'test',
    }  # fmt: skip
    assert len(data.notes) == 1 and data.notes[0].startswith('things groups other categories')


@pytest.mark.parametrize('beside', [False, True])
def test_a_single_file_is_split(tmp_path: Path, beside: bool) -> None:
    """The folder of its images is named in the file, or lies beside it."""
    path = own_data.single(tmp_path) / 'result.json'
    if beside:
        path.write_text(path.read_text().replace('photos/', ''))
    data = read_coco_folder(tmp_path, val_fraction=0.4, seed=3)
    train, val = data.parts['train'], data.parts['val']
    assert (train.names, val.names) == (3, 2)
    for part in (train, val):
        ids = {image['id'] for image in part.content['images']}
        assert {ann['image_id'] for ann in part.content['annotations']} == ids
        assert all((Path(part.images) / image['file_name']).is_file() for image in part.content['images'])
        assert all(ann['area'] == ann['bbox'][2] * ann['bbox'][3] for ann in part.content['annotations'])
        assert all(ann['iscrowd'] == 0 for ann in part.content['annotations'])
    assert '0.4 of the images to validate on, seed 3' in data.notes[-1]
    assert read_coco_folder(tmp_path, val_fraction=0.4, seed=3) == data


def test_class_maps_of_the_same_names_are_not_taken_for_images(tmp_path: Path) -> None:
    """As in the digits: the same images have boxes and class maps."""
    make_digits(tmp_path / 'digits', images=2, val_images=1, size=64, progress=False)
    data = read_coco_folder(tmp_path / 'digits')
    folders = {part: Path(own.images).relative_to(tmp_path / 'digits') for part, own in data.parts.items()}
    assert folders == {'train': Path('images/training'), 'val': Path('images/validation')}


def test_without_a_validation_part_the_test_part_takes_its_place(tmp_path: Path) -> None:
    own_data.exported(tmp_path)
    (tmp_path / 'valid' / '_annotations.coco.json').unlink()
    data = read_coco_folder(tmp_path)
    assert data.parts['val'] == data.parts['test'] and 'no validation part' in data.notes[-1]


def test_a_category_without_annotations_that_groups_none_is_a_class(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content['categories'].append(dict(id=9, name='red', supercategory='red'))

    own_data.exported(tmp_path)
    for part in ('train', 'valid', 'test'):
        edit(tmp_path / part / '_annotations.coco.json', change)
    assert read_coco_folder(tmp_path).classes == ('green', 'blue', 'red')


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    'no images': (lambda c: c['images'].clear(), 'train.*has images of no entries'),
    'no name': (lambda c: c['images'][0].pop('file_name'), "train.*images without id or file_name: {'id': 100"),
    'no list': (lambda c: c.update(categories={}), 'train.*must hold a list of categories'),
    'twice': (lambda c: c['categories'].append(dict(id=8, name='blue')), 'several categories.*blue: ids 7, 8'),
    'another order': (lambda c: c['categories'].reverse(), 'val2017.json has the categories green, blue, and .*train'),
    'no file': (lambda c: [i.update(file_name='x.png') for i in c['images']], 'train.*in no folder below.*: x.png'),
    'nothing': (lambda c: c['annotations'].clear(), 'train.*no annotations to learn from'),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_mistake_is_a_sentence_with_its_file(tmp_path: Path, case: str) -> None:
    change, words = WRONG[case]
    edit(own_data.instances(tmp_path) / 'annotations' / 'instances_train2017.json', change)
    with pytest.raises(ValueError, match=words):
        read_coco_folder(tmp_path)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = own_data.single(tmp_path) / 'result.json'
    path.write_text(path.read_text()[:-2])
    with pytest.raises(ValueError, match='result.json is no JSON, or is cut short'):
        read_coco_folder(tmp_path)


def test_several_files_for_one_part_are_named(tmp_path: Path) -> None:
    path = own_data.single(tmp_path) / 'result.json'
    for name in ('train_a.json', 'train_b.json'):
        (tmp_path / name).write_text(path.read_text())
    with pytest.raises(ValueError, match='several COCO files for train: .*train_a.json, .*train_b.json'):
        read_coco_folder(tmp_path)


@pytest.mark.parametrize('exists', [True, False])
def test_a_folder_without_annotations_lists_the_layouts(tmp_path: Path, exists: bool) -> None:
    words = 'no COCO file to train on; the layouts are' if exists else 'there is no folder'
    with pytest.raises(ValueError, match=words):
        read_coco_folder(tmp_path if exists else tmp_path / 'none')
