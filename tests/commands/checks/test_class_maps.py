"""Segmentation sets: files are listed as MMSegmentation lists them, and class maps hold classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmrope.commands.checks.config import CommandError, check_data
from mmrope.commands.checks.images import Size, header_size, spread
from mmrope.engine import class_maps, images

# A data set that is right passes without a word.
pytestmark = pytest.mark.filterwarnings('error:.*reads:UserWarning')

CLASSES = ('road', 'car', 'sky')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A good data set: three photos of 32 x 24, one in a folder, and maps with classes and ignored pixels."""
    for name in ('1', '2', 'b/3'):
        for folder in ('images', 'maps'):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (32, 24)).save(tmp_path / 'images' / f'{name}.jpg')
        values = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32) % 4
        save(tmp_path, name, np.where(values == 3, 255, values).astype(np.uint8))
    return tmp_path


def save(root: Path, name: str, values: np.ndarray, mode: str | None = None) -> None:
    Image.fromarray(values).convert(mode).save(root / 'maps' / f'{name}.png')


def config(root: Path, stage: str = 'train', head: dict | None = None, **dataset: Any) -> Config:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset = {
        'type': 'BaseSegDataset', 'data_root': str(root), 'metainfo': dict(classes=CLASSES), 'pipeline': pipeline,
        'data_prefix': dict(img_path='images', seg_map_path='maps'), **dataset,
    }  # fmt: skip
    number = len(dataset['metainfo']['classes'])
    model = dict(decode_head=dict(dict(type='FCNHead', num_classes=number), **head or {}))
    return Config(
        {'default_scope': 'mmseg', 'model': model, f'{stage}_dataloader': dict(dataset=dataset), f'{stage}_cfg': dict()}
    )


def refused(cfg: Config, words: str, stage: str = 'train') -> None:
    with pytest.raises(CommandError, match=words) as caught:
        check_data(cfg, (stage,))
    assert '\n' not in str(caught.value)


def load_by_host(root: Path, name: str, **sample: Any) -> np.ndarray:
    from mmseg.datasets.transforms import LoadAnnotations

    path = str(root / 'maps' / f'{name}.png')
    results = dict(seg_map_path=path, seg_fields=[], reduce_zero_label=False, label_map=None) | sample
    return LoadAnnotations()(results)['gt_seg_map']


def with_value(value: int) -> np.ndarray:
    values = np.zeros((24, 32), np.uint8)
    values[3, 4] = value
    return values


# What maps hold.


def test_a_good_data_set_passes(root: Path) -> None:
    for stage in ('train', 'val', 'test'):
        check_data(config(root, stage), (stage,))


@pytest.mark.parametrize('value', [57, 3])
def test_a_value_of_no_class_is_named_with_its_file(root: Path, value: int) -> None:
    save(root, 'b/3', with_value(value))
    words = rf'values of no class: {value} in .*maps/b/3\.png; classes are 0 to 2, and pixels to ignore are 255'
    refused(config(root), words)
    with pytest.warns(UserWarning, match=f'{words}: the metrics pass over'):
        check_data(config(root, 'val'), ('val',))


def test_what_the_loss_ignores_may_occur_and_nothing_else(root: Path) -> None:
    save(root, '1', with_value(3))
    refused(config(root, head=dict(ignore_index=3)), 'values of no class: 255 in .*pixels to ignore are 3')
    for name in ('1', '2', 'b/3'):
        save(root, name, np.where(with_value(3), 3, np.tile(np.arange(2, dtype=np.uint8), (24, 16))).astype(np.uint8))
    check_data(config(root, head=dict(ignore_index=3)), ('train',))


def test_values_are_those_of_the_file_where_zero_is_reduced(root: Path) -> None:
    save(root, '1', np.tile(np.arange(4, dtype=np.uint8), (24, 8)))
    check_data(config(root, reduce_zero_label=True), ('train',))
    save(root, '1', with_value(4))
    assert load_by_host(root, '1', reduce_zero_label=True).max() == 255
    assert load_by_host(root, '1', reduce_zero_label=True)[3, 4] == 3
    words = r'no class: 4 in .*1\.png; classes are 1 to 3, and pixels to ignore are 0 or 255'
    refused(config(root, reduce_zero_label=True), words)


def test_values_are_mapped_as_the_host_maps_classes(root: Path) -> None:
    chosen = dict(type='CityscapesDataset', img_suffix='.jpg', seg_map_suffix='.png')
    chosen['metainfo'] = dict(classes=('car', 'road'))
    for name in ('1', '2', 'b/3'):
        save(root, name, np.tile(np.array([0, 13, 18, 255], np.uint8), (24, 8)))
    check_data(config(root, **chosen), ('train',))
    save(root, '2', with_value(19))
    refused(config(root, **chosen), r'no class: 19 in .*2\.png; classes are 0 to 18')


@pytest.mark.parametrize('mode, channels', [('RGB', 3), ('RGBA', 4), ('LA', 2)])
def test_maps_of_several_channels_are_refused(root: Path, mode: str, channels: int) -> None:
    save(root, '2', with_value(1), mode)
    for stage in ('train', 'val'):
        refused(config(root, stage), rf'maps of {channels} channels, as .*maps/2\.png \({mode}; 1 of 3', stage)


def test_palettes_one_bit_and_sixteen_bits_are_right(root: Path) -> None:
    palette = Image.fromarray(with_value(2)).convert('L')
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(root / 'maps' / '1.png')
    Image.fromarray(with_value(1) > 0).save(root / 'maps' / '2.png')
    Image.fromarray(with_value(2).astype(np.uint16)).save(root / 'maps' / 'b' / '3.png')
    assert header_size(str(root / 'maps' / '1.png')) == (32, 24, 1)
    assert [load_by_host(root, name)[3, 4] for name in ('1', '2', 'b/3')] == [2, 1, 2]
    check_data(config(root), ('train',))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', imdecode_backend='cv2')]
    refused(config(root, pipeline=pipeline), r"1\.png \(P; .*imdecode_backend='pillow'")


def test_a_value_that_eight_bits_do_not_hold_is_refused(root: Path) -> None:
    values = with_value(1).astype(np.uint16)
    values[5, 5] = 258
    Image.fromarray(values).save(root / 'maps' / '2.png')
    assert load_by_host(root, '2')[5, 5] == 2
    refused(config(root), r'the value 258, which is read as 2 .*maps/2\.png')
    values[5, 5] = 65535  # which is read as 255
    Image.fromarray(values).save(root / 'maps' / '2.png')
    check_data(config(root), ('train',))


def test_two_classes_stored_as_0_and_255_are_refused(root: Path) -> None:
    for name in ('1', '2', 'b/3'):
        save(root, name, with_value(255))
    words = 'one class only, 0, in all class maps.*255 is ignored; two classes are stored as 0 and 1'
    refused(config(root, metainfo=dict(classes=('road', 'car'))), words)
    save(root, '2', with_value(1))
    check_data(config(root, metainfo=dict(classes=('road', 'car'))), ('train',))


def test_maps_of_ignored_pixels_only_are_a_warning_and_refused_where_all_are(root: Path) -> None:
    save(root, '2', np.full((24, 32), 255, np.uint8))
    with pytest.warns(
        UserWarning, match=r'1 class maps of ignored pixels only, of 3 .* as .*maps/2\.png \(value 255\)'
    ):
        check_data(config(root), ('train',))
    for name in ('1', 'b/3'):
        save(root, name, np.full((24, 32), 255, np.uint8))
    refused(config(root), r'nothing to learn from: all class maps are of ignored pixels only \(255\)')


def test_a_single_class_is_a_warning(root: Path) -> None:
    for name in ('1', '2', 'b/3'):
        save(root, name, np.ones((24, 32), np.uint8))
    with pytest.warns(UserWarning, match='one class only, 1, in all class maps'):
        check_data(config(root), ('train',))


def test_a_map_that_is_no_image_is_a_warning(root: Path) -> None:
    (root / 'maps' / '2.png').write_bytes(b'no image')
    with pytest.warns(UserWarning, match=r'class maps that cannot be read: .*maps/2\.png'):
        check_data(config(root), ('train',))


def test_a_transform_of_the_users_may_mend_values(root: Path) -> None:
    from mmcv.transforms import BaseTransform

    class Merge(BaseTransform):
        def transform(self, results: dict) -> dict:
            return results

    save(root, '2', with_value(57))
    cfg = config(root)
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(type=Merge))
    with pytest.warns(UserWarning, match='values of no class: 57'):
        check_data(cfg, ('train',))


def test_a_single_class_is_told_from_what_is_none_of_it(root: Path) -> None:
    for name in ('1', '2', 'b/3'):
        save(root, name, with_value(1))
    check_data(config(root, metainfo=dict(classes=('car',))), ('train',))
    save(root, '2', with_value(2))
    refused(config(root, metainfo=dict(classes=('car',))), 'values of no class: 2 in')


def test_maps_that_a_step_of_the_users_reads_are_not_judged(root: Path) -> None:
    from mmseg.datasets.transforms import LoadAnnotations

    class LoadColours(LoadAnnotations):
        pass

    save(root, '2', with_value(1), 'RGB')
    check_data(config(root, pipeline=[dict(type='LoadImageFromFile'), dict(type=LoadColours)]), ('train',))


def test_a_step_that_contradicts_the_data_set_is_told_with_its_own_words(root: Path) -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    with pytest.warns(UserWarning, match='cannot be read: .*Initialize dataset with `reduce_zero_label`'):
        check_data(config(root, pipeline=pipeline), ('train',))


# Sizes.


@pytest.mark.parametrize('stage', ['train', 'val'])
def test_a_map_of_another_size_than_its_image_is_refused(root: Path, stage: str) -> None:
    save(root, '2', np.tile(np.arange(2, dtype=np.uint8), (24, 15)))
    refused(
        config(root, stage), r'1 of 3 looked at, as .*images/2\.jpg: 32 x 24 where the map is 30 x 24: scale', stage
    )


def test_sizes_that_resizing_makes_equal_are_a_warning_in_training(root: Path) -> None:
    for name in ('1', '2', 'b/3'):
        save(root, name, np.tile(np.arange(2, dtype=np.uint8), (12, 8)))
    resizing = [dict(type='RandomResize', scale=(64, 64), keep_ratio=True)]
    cfg = config(root)
    refused(cfg, '32 x 24 where the map is 16 x 12')
    cfg.train_dataloader.dataset.pipeline += resizing
    with pytest.warns(UserWarning, match='32 x 24 where the map is 16 x 12'):
        check_data(cfg, ('train',))


def test_another_shape_is_mended_only_by_resizing_to_one_size(root: Path) -> None:
    save(root, '2', np.tile(np.arange(2, dtype=np.uint8), (24, 15)))
    cfg = config(root)
    cfg.train_dataloader.dataset.pipeline += [dict(type='RandomResize', scale=(64, 64), keep_ratio=True)]
    refused(cfg, '32 x 24 where the map is 30 x 24')
    cfg.train_dataloader.dataset.pipeline[-1].keep_ratio = False
    with pytest.warns(UserWarning, match='32 x 24 where the map is 30 x 24'):
        check_data(cfg, ('train',))


def test_a_photo_that_exif_turns_away_from_its_map_is_refused(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (32, 24)).save(root / 'images' / '2.jpg', exif=exif)
    words = r'images/2\.jpg: 24 x 32 where the map is 32 x 24, because EXIF turns it \(orientation 6\): set color_type'
    refused(config(root), words)
    Image.new('RGB', (24, 32)).save(root / 'images' / '2.jpg', exif=exif)
    check_data(config(root), ('train',))


# Which files.


def test_hidden_files_and_other_suffixes_are_no_samples(root: Path) -> None:
    for name in ('._1.jpg', '.DS_Store', 'b/._3.jpg', 'notes.txt', '2.jpeg'):
        (root / 'images' / name).write_bytes(b'x')
    for name in ('._1.png', 'Thumbs.db'):
        (root / 'maps' / name).write_bytes(b'x')
    check_data(config(root), ('train',))


MISSING: dict[str, tuple[Callable[[Path], Any], str]] = {
    'a map': (lambda p: (p / 'maps' / 'b' / '3.png').unlink(), r'without a class map \(\*\.png\) in .*maps: b/3$'),
    'an empty map': (lambda p: (p / 'maps' / '1.png').write_bytes(b''), r'class maps that are empty files: .*1\.png'),
    'an empty image': (lambda p: (p / 'images' / '1.jpg').write_bytes(b''), r'images that are empty files: .*1\.jpg'),
}  # fmt: skip


@pytest.mark.parametrize('listed', [False, True], ids=['folder', 'list'])
@pytest.mark.parametrize('case', MISSING)
def test_a_sample_without_a_file_is_named(root: Path, case: str, listed: bool) -> None:
    spoil, words = MISSING[case]
    (root / 'train.txt').write_text('1\n2\nb/3\n')
    spoil(root)
    source, verb = (r'train\.txt', 'names') if listed else ('images', 'has')
    refused(config(root, ann_file='train.txt' if listed else ''), f'reads [^ ]*{source}, which {verb} .*{words}')


def test_a_listed_image_that_does_not_exist_is_named(root: Path) -> None:
    (root / 'train.txt').write_text('1\n4\n')
    refused(config(root, ann_file='train.txt'), r'train\.txt, which names images that do not exist \(\*\.jpg\).*: 4$')
    (root / 'train.txt').write_text('1.jpg\n2.jpg\n')
    refused(config(root, ann_file='train.txt'), r": 1\.jpg, 2\.jpg; names are listed without img_suffix='\.jpg'")


@pytest.mark.parametrize('text, line', [('1\n2\n\n', 3), ('1\n \n2\n', 2), ('\n1\n', 1)])
def test_a_blank_line_is_an_image_without_a_name(root: Path, text: str, line: int) -> None:
    (root / 'train.txt').write_text(text)
    refused(config(root, ann_file='train.txt'), rf'train\.txt, which has blank lines, .*: line {line};')


@pytest.mark.parametrize('text', ['1\n2', '1 \n2\t\n', '1\r\n2\r\n'])
def test_white_space_around_a_name_is_none_of_it(root: Path, text: str) -> None:
    (root / 'train.txt').write_text(text)
    (root / 'images' / 'unlisted.jpg').write_bytes(b'')
    check_data(config(root, ann_file='train.txt'), ('train',))


def test_a_folder_without_images_of_the_suffix_names_those_there_are(root: Path) -> None:
    refused(
        config(root, img_suffix='.tif'), r'images, which has no images that end in \.tif, but \.jpg: set img_suffix'
    )


def test_images_that_the_data_set_does_not_take_may_lack_a_map(root: Path) -> None:
    (root / 'maps' / 'b' / '3.png').unlink()
    check_data(config(root, indices=2), ('train',))


def test_a_test_set_without_maps_passes(root: Path) -> None:
    check_data(config(root, 'test', data_prefix=dict(img_path='images')), ('test',))


# Samples.


def test_a_sample_is_spread_and_always_the_same() -> None:
    items = list(range(20_000))
    drawn = spread(items, 100)
    assert drawn == spread(items, 100) and len(drawn) == 100
    assert all(200 * i <= item < 200 * (i + 1) for i, item in enumerate(drawn))
    assert len({item % 200 for item in drawn}) > 50  # not the first of each
    assert spread(items[:100], 100) == items[:100]


def test_of_many_maps_a_sample_is_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(class_maps, '_look_at', lambda sample, load: opened.append(sample['seg_map_path']) or OSError())
    names = [str(i) for i in range(300)]
    for name in names:
        (root / 'images' / f'{name}.jpg').write_bytes(b'x')
        save(root, name, with_value(1))
    monkeypatch.setattr(class_maps, 'MOST_PIXELS', 0)
    with pytest.warns(UserWarning, match='cannot be read'):
        check_data(config(root), ('train',))
    assert len(opened) == len(set(opened)) == 50


def test_sizes_come_from_headers_where_these_tell(tmp_path: Path) -> None:
    Image.new('RGB', (32, 24)).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes(b'no image')
    expected = {str(tmp_path / name): (32, 24) for name in ('a.png', 'b.png', 'none.png')}
    assert images.read_sizes(expected, read=None) == {str(tmp_path / 'a.png'): Size(32, 24)}
