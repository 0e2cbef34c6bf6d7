"""Segmentation sets: files are listed as MMSegmentation lists them, and class maps hold classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmrope.commands.checks import class_maps
from mmrope.commands.checks.config import CommandError, check_data
from mmrope.commands.checks.images import Size, header_size, spread, unlike

# A good data set passes without a warning.
pytestmark = pytest.mark.filterwarnings('error:.*reads:UserWarning')

LOAD, CLASSES, TWO = dict(type='LoadImageFromFile'), ('road', 'car', 'sky'), dict(classes=('road', 'car'))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A good data set: three photos of 32 x 24, one in a folder, and maps with classes and ignored pixels."""
    for name in ('1', '2', 'b/3'):
        for folder in ('images', 'maps'):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (32, 24)).save(tmp_path / 'images' / f'{name}.jpg')
    fill(tmp_path, tiled(0, 1, 2, 255))
    return tmp_path


def save(root: Path, name: str, values: np.ndarray, mode: str | None = None) -> None:
    Image.fromarray(values).convert(mode).save(root / 'maps' / f'{name}.png')


def fill(root: Path, values: np.ndarray) -> None:
    for name in ('1', '2', 'b/3'):
        save(root, name, values)


def tiled(*values: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.tile(np.array(values, np.uint8), (height, width // len(values)))


def with_value(value: int) -> np.ndarray:
    values = np.zeros((24, 32), np.uint8)
    values[3, 4] = value
    return values


def config(root: Path, stage: str = 'train', head: dict | None = None, **dataset: Any) -> Config:
    dataset = {
        'type': 'BaseSegDataset', 'data_root': str(root), 'metainfo': dict(classes=CLASSES),
        'pipeline': [LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
        'data_prefix': dict(img_path='images', seg_map_path='maps'), **dataset,
    }  # fmt: skip
    model = dict(decode_head=dict(type='FCNHead', num_classes=len(dataset['metainfo']['classes'])) | (head or {}))
    return Config(
        {'default_scope': 'mmseg', 'model': model, f'{stage}_dataloader': dict(dataset=dataset), f'{stage}_cfg': dict()}
    )


def check(root: Path, stage: str = 'train', **options: Any) -> None:
    check_data(config(root, stage, **options), (stage,))


def refused(root: Path, words: str, stage: str = 'train', **options: Any) -> None:
    with pytest.raises(CommandError, match=words) as caught:
        check(root, stage, **options)
    assert '\n' not in str(caught.value)


def warned(root: Path, words: str, stage: str = 'train', **options: Any) -> None:
    with pytest.warns(UserWarning, match=words):
        check(root, stage, **options)


def load_by_host(root: Path, name: str, **sample: Any) -> np.ndarray:
    path = str(root / 'maps' / f'{name}.png')
    results = dict(seg_map_path=path, seg_fields=[], reduce_zero_label=False, label_map=None) | sample
    return LoadAnnotations()(results)['gt_seg_map']


# Values of the maps.


@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_a_good_data_set_passes(root: Path, stage: str) -> None:
    check(root, stage)


@pytest.mark.parametrize('value', [57, 3])
def test_a_value_of_no_class_is_named_with_its_file(root: Path, value: int) -> None:
    save(root, 'b/3', with_value(value))
    words = rf'no class: {value} in .*maps/b/3\.png; classes are 0 to 2, and pixels to ignore are 255'
    refused(root, words)
    warned(root, f'{words}: the metrics', 'val')


def test_only_values_that_the_loss_ignores_may_occur_beside_classes(root: Path) -> None:
    refused(root, 'no class: 255 in .*pixels to ignore are 3', head=dict(ignore_index=3))
    fill(root, tiled(0, 1, 2, 3))
    check(root, head=dict(ignore_index=3))


def test_values_are_those_of_the_file_where_zero_is_reduced(root: Path) -> None:
    fill(root, tiled(0, 1, 2, 3))
    check(root, reduce_zero_label=True)
    save(root, '1', with_value(4))
    read = load_by_host(root, '1', reduce_zero_label=True)
    assert (read.max(), read[3, 4]) == (255, 3)
    words = r'no class: 4 in .*1\.png; classes are 1 to 3, and pixels to ignore are 0 or 255'
    refused(root, words, reduce_zero_label=True)


def test_values_are_mapped_as_the_host_maps_classes(root: Path) -> None:
    chosen = dict(type='CityscapesDataset', img_suffix='.jpg', seg_map_suffix='.png')
    chosen['metainfo'] = dict(classes=('car', 'road'))
    fill(root, tiled(0, 13, 18, 255))
    check(root, **chosen)
    save(root, '2', with_value(19))
    refused(root, r'no class: 19 in .*2\.png; classes are 0 to 18', **chosen)


@pytest.mark.parametrize('stage', ['train', 'val'])
@pytest.mark.parametrize('mode, channels', [('RGB', 3), ('RGBA', 4), ('LA', 2)])
def test_maps_of_several_channels_are_refused(root: Path, mode: str, channels: int, stage: str) -> None:
    save(root, '2', with_value(1), mode)
    refused(root, rf'{channels} channels, as .*maps/2\.png: ', stage)


def test_palettes_one_bit_and_sixteen_bits_are_right(root: Path) -> None:
    palette = Image.fromarray(with_value(2)).convert('L')
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(root / 'maps' / '1.png')
    Image.fromarray(with_value(1) > 0).save(root / 'maps' / '2.png')
    Image.fromarray(with_value(2).astype(np.uint16)).save(root / 'maps' / 'b' / '3.png')
    assert header_size(str(root / 'maps' / '1.png')) == (32, 24, 1)
    assert [load_by_host(root, name)[3, 4] for name in ('1', '2', 'b/3')] == [2, 1, 2]
    check(root)
    pipeline = [LOAD, dict(type='LoadAnnotations', imdecode_backend='cv2')]
    refused(root, r"3 channels, as .*1\.png: .*imdecode_backend='pillow'", pipeline=pipeline)


def test_a_value_that_eight_bits_do_not_hold_is_refused(root: Path) -> None:
    values = tiled(0, 1).astype(np.uint16)
    for value, read in ((258, 2), (65535, 255)):  # the latter is ignored
        values[5, 5] = value
        Image.fromarray(values).save(root / 'maps' / '2.png')
        assert load_by_host(root, '2')[5, 5] == read
        if read == 2:
            refused(root, r'258, read as 2 .*maps/2\.png')
    check(root)


def test_two_classes_stored_as_0_and_255_are_refused(root: Path) -> None:
    fill(root, with_value(255))
    refused(root, 'only one class, 0, in the 3 class maps.*store two classes as 0 and 1', metainfo=TWO)
    save(root, '2', with_value(1))
    check(root, metainfo=TWO)


def test_maps_of_ignored_pixels_only_are_a_warning_and_refused_where_all_are(root: Path) -> None:
    save(root, '2', tiled(255))
    warned(root, r'1 class maps of ignored pixels only \(of 3 checked\), as .*maps/2\.png')
    fill(root, tiled(255))
    refused(root, r'nothing to learn from: .*ignored pixels only, \[255\]')


def test_a_single_class_of_several_is_a_warning_and_the_only_one_has_a_background(root: Path) -> None:
    fill(root, tiled(1))
    warned(root, 'only one class, 1, in the 3 class maps')
    fill(root, with_value(1))
    check(root, metainfo=dict(classes=('car',)))
    save(root, '2', with_value(2))
    refused(root, 'no class: 2 in', metainfo=dict(classes=('car',)))


def test_an_unreadable_map_is_a_warning_with_the_error_of_the_host(root: Path) -> None:
    pipeline = [LOAD, dict(type='LoadAnnotations', reduce_zero_label=True)]  # against the data set
    warned(root, 'cannot be read: .*Initialize dataset with `reduce_zero_label`', pipeline=pipeline)
    (root / 'maps' / '2.png').write_bytes(b'no image')
    warned(root, r'cannot be read: .*maps/2\.png')


def test_steps_of_the_users_may_mend_or_read_maps_in_their_own_way(root: Path) -> None:
    class Merge(BaseTransform):
        def transform(self, results: dict) -> dict:
            return results

    class LoadColours(LoadAnnotations):
        pass

    save(root, '2', with_value(57))
    warned(root, 'no class: 57', pipeline=[LOAD, dict(type='LoadAnnotations'), dict(type=Merge)])
    check(root, pipeline=[LOAD, dict(type=LoadColours)])


# Sizes.


@pytest.mark.parametrize('stage', ['train', 'val'])
def test_a_map_of_another_size_than_its_image_is_refused(root: Path, stage: str) -> None:
    save(root, '2', tiled(0, 1, width=30))
    refused(
        root, r'1 images \(of 3 checked\) .*images/2\.jpg: read as 32 x 24, but 30 x 24 in its class map; scale', stage
    )


@pytest.mark.parametrize('height, width, kept', [(12, 16, True), (24, 30, False)])
def test_sizes_that_resizing_makes_equal_are_a_warning_in_training(
    root: Path, height: int, width: int, kept: bool
) -> None:
    fill(root, tiled(0, 1, height=height, width=width))
    words = f'read as 32 x 24, but {width} x {height} in its class map'
    refused(root, words)
    pipeline = [LOAD, dict(type='LoadAnnotations'), dict(type='RandomResize', scale=(64, 64), keep_ratio=kept)]
    warned(root, words, pipeline=pipeline)
    if not kept:  # another shape stays one if the ratio is kept
        refused(root, words, pipeline=[*pipeline[:-1], pipeline[-1] | dict(keep_ratio=True)])


def test_a_photo_that_exif_turns_away_from_its_map_is_refused(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (32, 24)).save(root / 'images' / '2.jpg', exif=exif)
    refused(
        root,
        r'2\.jpg: read as 24 x 32, but 32 x 24 in its class map; EXIF turns it \(orientation 6\), so set color_type',
    )
    Image.new('RGB', (24, 32)).save(root / 'images' / '2.jpg', exif=exif)
    check(root)


def test_sizes_come_from_headers_where_these_tell(tmp_path: Path) -> None:
    Image.new('RGB', (32, 24)).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes(b'no image')
    expected = {str(tmp_path / name): (32, 24) for name in ('a.png', 'b.png', 'none.png')}
    assert unlike(expected, read=None) == {}
    expected[str(tmp_path / 'a.png')] = (24, 32)
    assert unlike(expected, read=lambda path: (32, 24)) == {str(tmp_path / 'a.png'): Size(32, 24)}


# Files.


def test_hidden_files_and_other_suffixes_are_no_samples(root: Path) -> None:
    for name in (
        'images/._1.jpg',
        'images/b/._3.jpg',
        'images/notes.txt',
        'images/2.jpeg',
        'maps/._1.png',
        'maps/x.db',
    ):
        (root / name).write_bytes(b'x')
    check(root)


MISSING: dict[str, tuple[Callable[[Path], Any], str]] = {
    'a map': (lambda p: (p / 'maps' / 'b' / '3.png').unlink(), r'class maps that do not exist: .*maps/b/3\.png$'),
    'an empty map': (lambda p: (p / 'maps' / '1.png').write_bytes(b''), r'class maps that are empty files: .*1\.png'),
    'an empty image': (lambda p: (p / 'images' / '1.jpg').write_bytes(b''), r'images that are empty files: .*1\.jpg'),
}  # fmt: skip


@pytest.mark.parametrize('listed', [False, True], ids=['folder', 'list'])
@pytest.mark.parametrize('case', MISSING)
def test_a_sample_without_a_file_is_named(root: Path, case: str, listed: bool) -> None:
    spoil, words = MISSING[case]
    (root / 'train.txt').write_text('1\n2\nb/3\n')
    spoil(root)
    source = r'train\.txt' if listed else 'images'
    refused(root, f'reads [^ ]*{source}, which lists {words}', ann_file='train.txt' if listed else '')


@pytest.mark.parametrize(
    'text, words',
    [
        ('1\n4\n', r'images that do not exist: .*images/4\.jpg$'),
        ('1.jpg\n2.jpg\n', r'do not exist: .*images/1\.jpg\.jpg, .*2\.jpg\.jpg$'),
        ('1\n2\n\n', 'blank lines.*: line 3;'),
        ('1\n \n2\n', 'blank lines.*: line 2;'),
        ('\n1\n', 'blank lines.*: line 1;'),
    ],
)
def test_a_wrong_line_of_a_list_is_named(root: Path, text: str, words: str) -> None:
    (root / 'train.txt').write_text(text)
    refused(root, rf'train\.txt, which .*{words}', ann_file='train.txt')


@pytest.mark.parametrize('text', ['1\n2', '1 \n2\t\n', '1\r\n2\r\n'])
def test_white_space_around_a_name_is_ignored(root: Path, text: str) -> None:
    (root / 'train.txt').write_text(text)
    (root / 'images' / 'unlisted.jpg').write_bytes(b'')
    check(root, ann_file='train.txt')


def test_a_folder_without_images_of_the_suffix_is_refused(root: Path) -> None:
    refused(root, r'no images that end in \.tif: set img_suffix', img_suffix='.tif')


def test_images_that_the_data_set_does_not_take_and_test_sets_need_no_map(root: Path) -> None:
    (root / 'maps' / 'b' / '3.png').unlink()
    check(root, indices=2)
    check(root, 'test', data_prefix=dict(img_path='images'))


# Samples.


def test_a_sample_is_spread_and_always_the_same() -> None:
    items = list(range(20_000))
    drawn = spread(items, 100)
    assert drawn == spread(items, 100) and [item // 200 for item in drawn] == list(range(100))
    assert len({item % 200 for item in drawn}) > 50  # not the first of each
    assert spread(items[:100], 100) == items[:100]


def test_of_many_maps_a_sample_is_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(class_maps, '_look_at', lambda sample, load: opened.append(sample['seg_map_path']) or OSError())
    monkeypatch.setattr(class_maps, 'MOST_PIXELS', 0)
    for i in range(300):
        (root / 'images' / f'{i}.jpg').write_bytes(b'x')
        save(root, str(i), with_value(1))
    warned(root, 'cannot be read')
    assert len(opened) == len(set(opened)) == 50
