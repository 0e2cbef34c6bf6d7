"""The embedded data set: what is drawn, what is written, and what happens to folders that are already there."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip('sklearn')
coco_masks = pytest.importorskip('pycocotools.mask')

from mmrope.datasets import digits, scenes  # noqa: E402
from mmrope.datasets.digits import CLASSES, SPLITS, load_handwriting, make_digits, make_scene  # noqa: E402
from tests.helpers.recipes import CONFIGS  # noqa: E402

METAINFO = Config.fromfile(CONFIGS / '_base_/datasets/digits_segmentation.py').metainfo
COUNTS = {'training': 8, 'validation': 4}
ARGUMENTS = {'images': 8, 'val_images': 4, 'size': (96, 160), 'seed': 3, 'progress': False}
SIZES = [(32, 32), (64, 64), (128, 128), (96, 160), (77, 45)]


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that no test changes."""
    path = tmp_path_factory.mktemp('made') / 'digits'
    assert make_digits(path, **ARGUMENTS)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A data set of two scenes that a test may change."""
    make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    return tmp_path / 'digits'


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def coco(root: Path, split: str) -> dict:
    return json.loads((root / 'annotations' / f'instances_{split}.json').read_text())


def instances(root: Path) -> list[tuple[str, dict, np.ndarray]]:
    """Split, annotation and decoded mask of every instance of a data set."""
    return [
        (split, annotation, coco_masks.decode(annotation['segmentation']).astype(bool))
        for split in SPLITS
        for annotation in coco(root, split)['annotations']
    ]


def some_scenes(size: tuple[int, int], count: int = 12) -> list[scenes.Scene]:
    handwriting = load_handwriting('training')
    return [make_scene('training', index, handwriting, size, seed=5) for index in range(count)]


def visible_by_painting(shapes: np.ndarray) -> np.ndarray:
    """Paint the number of each shape over the earlier ones; a shape keeps the pixels that still bear its number."""
    owner = np.full(shapes.shape[1:], -1)
    for number, shape in enumerate(shapes):
        owner[shape] = number
    return np.stack([owner == number for number in range(len(shapes))])


def test_same_arguments_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    make_digits(tmp_path / 'again', **ARGUMENTS)
    assert contents(tmp_path / 'again') == contents(root)
    assert len(contents(root)) == 2 * (8 + 4) + 4
    assert (root / 'classes.txt').read_text().split() == ['void', 'background', *'0123456789']


def test_scene_does_not_depend_on_how_many_are_made(root: Path, tmp_path: Path) -> None:
    make_digits(tmp_path / 'few', **ARGUMENTS | {'images': 2, 'val_images': 1})
    many = contents(root)
    for name, data in contents(tmp_path / 'few').items():
        assert not name.endswith('.png') or data == many[name]
    for split, count in (('training', 2), ('validation', 1)):
        few, all_of_them = coco(tmp_path / 'few', split), coco(root, split)
        assert few['images'] == all_of_them['images'][:count]
        assert few['annotations'] == [found for found in all_of_them['annotations'] if found['image_id'] < count]


def test_seed_split_and_index_each_change_the_scene() -> None:
    handwriting = load_handwriting('training')
    keys = itertools.product(SPLITS, (0, 1), (0, 1))
    images = [make_scene(split, index, handwriting, (32, 32), seed).image.tobytes() for split, index, seed in keys]
    assert len(set(images)) == 8


def test_splits_share_no_handwriting() -> None:
    glyphs, labels = zip(*(load_handwriting(split) for split in SPLITS), strict=True)
    assert [len(part) for part in glyphs] == [1347, 450]
    assert not {glyph.tobytes() for glyph in glyphs[0]} & {glyph.tobytes() for glyph in glyphs[1]}
    assert all(set(part) == set(range(10)) for part in labels)
    assert all(part.min() == 0 and part.max() == 1 for part in glyphs)


def test_each_split_is_written_from_its_own_handwriting(tmp_path: Path) -> None:
    make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    for split, other in zip(SPLITS, reversed(SPLITS), strict=True):
        written = np.asarray(Image.open(tmp_path / 'digits' / 'images' / split / '000000.png'))
        own, others = (digits.make_scene(split, 0, load_handwriting(s), (32, 32), 0).image for s in (split, other))
        np.testing.assert_array_equal(written, own)
        assert not np.array_equal(written, others)


@pytest.mark.parametrize('size', SIZES)
def test_every_digit_shows_at_least_its_visible_part(size: tuple[int, int]) -> None:
    crossed = 0
    for scene in some_scenes(size):
        assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
        assert 1 <= len(scene.labels) == len(scene.shapes) <= scenes.NUM_DIGITS[1]
        masks = visible_by_painting(scene.shapes)
        np.testing.assert_array_equal(scene.masks, masks)
        whole, left = scene.shapes.sum((1, 2)), masks.sum((1, 2))
        assert (left > 0).all() and (left >= scenes.MIN_VISIBLE * whole).all()
        crossed += (left < whole).sum()
    assert crossed > 0


def test_digit_that_loses_too_much_ink_is_not_readable() -> None:
    shapes = np.zeros((2, 40, 40), bool)
    shapes[0, :20, 0] = shapes[0, 13:20, 13:20] = True  # a thin line, and most of the ink in the lower right corner
    shapes[1, 16:36, 16:36] = True
    assert scenes.is_readable(shapes)
    shapes[1, 13:33, 13:33] = True
    assert not scenes.is_readable(shapes)


def test_tangled_digits_are_not_readable_even_when_they_show() -> None:
    rows, columns = np.indices((20, 20))
    cross = np.stack([rows == columns, rows == 19 - columns])
    assert (visible_by_painting(cross).sum((1, 2)) >= 19).all()
    assert not scenes.is_readable(cross)


@pytest.mark.parametrize('size', SIZES)
def test_image_shows_ink_in_the_shapes_and_clutter_elsewhere(size: tuple[int, int]) -> None:
    handwriting = load_handwriting('training')
    for index in range(6):
        scene = make_scene('training', index, handwriting, size, seed=5)
        clutter = scenes.draw_clutter(np.random.default_rng([5, 0, index]), size).clip(0, 255)
        change = np.abs(scene.image - clutter).max(2)
        ink = scene.shapes.any(0)
        around = np.lib.stride_tricks.sliding_window_view(np.pad(ink, 2), (5, 5)).any((2, 3))
        assert np.median(change[ink]) > 60
        assert change[~around].max() <= 0.5


def test_labels_are_those_of_the_glyphs() -> None:
    glyphs = np.zeros((2, 8, 8))
    glyphs[0, :, 3:5] = glyphs[1, 3:5, :] = 1  # upright and lying bars
    for index in range(10):
        scene = scenes.compose_scene(np.random.default_rng(index), glyphs, np.array([1, 7]), (96, 96))
        boxes = scenes.tight_boxes(scene.shapes)
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        np.testing.assert_array_equal(scene.labels, np.where(height > width, 1, 7))


def axes(ink: np.ndarray) -> tuple[float, float]:
    """Length over width of ink (h, w), and the angle in degrees of its long axis to the vertical."""
    rows, columns = np.nonzero(ink >= 0.5)
    spread, directions = np.linalg.eigh(np.cov(columns, rows))
    x, y = directions[:, 1]
    return np.sqrt(spread[1] / spread[0]), np.degrees(np.arctan(x / y))


def test_disc_stays_nearly_round_and_a_bar_turns_both_ways() -> None:
    rows, columns = np.indices((8, 8)) - 3.5
    disc, bar = (rows**2 + columns**2 < 9).astype(float), (abs(columns) < 1).astype(float)
    assert max(axes(scenes.draw_digit(np.random.default_rng(n), disc, 128))[0] for n in range(60)) < 1.4
    angles = [axes(scenes.draw_digit(np.random.default_rng(n), bar, 128))[1] for n in range(60)]
    assert -40 < min(angles) < -20 and 20 < max(angles) < 40


def test_digit_takes_its_share_of_the_shorter_side() -> None:
    block = np.ones((8, 8))
    for side in (32, 128, 256):
        areas = [scenes.draw_digit(np.random.default_rng(n), block, side).sum() for n in range(60)]
        low, high = np.sqrt(areas).min() / side, np.sqrt(areas).max() / side
        assert 0.9 * scenes.DIGIT_HEIGHT[0] < low < high < 1.2 * scenes.DIGIT_HEIGHT[1]
        assert high > 2 * low


def test_coco_boxes_are_tight_and_areas_right(root: Path) -> None:
    for _, annotation, mask in instances(root):
        rows, columns = np.nonzero(mask)
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert annotation['bbox'] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation['area'] == mask.sum() == len(rows)
        assert annotation['iscrowd'] == 0


def test_label_maps_agree_with_the_masks_and_masks_never_overlap(root: Path) -> None:
    found = instances(root)
    for split, count in COUNTS.items():
        for index in range(count):
            expected = np.ones(ARGUMENTS['size'], np.uint8)
            here = [(entry, mask) for where, entry, mask in found if (where, entry['image_id']) == (split, index)]
            assert here and sum(mask for _, mask in here).max() == 1
            for annotation, mask in here:
                expected[mask] = annotation['category_id'] + 1
            labels = np.asarray(Image.open(root / 'annotations' / split / f'{index:06d}.png'))
            assert labels.dtype == np.uint8 and labels.shape == (96, 160)
            np.testing.assert_array_equal(labels, expected)


def test_files_hold_the_scenes(root: Path) -> None:
    for split, count in COUNTS.items():
        table, handwriting = coco(root, split), load_handwriting(split)
        names = [f'{index:06d}.png' for index in range(count)]
        assert [image['file_name'] for image in table['images']] == names
        assert {(image['height'], image['width']) for image in table['images']} == {(96, 160)}
        assert [category['name'] for category in table['categories']] == list(CLASSES)
        assert len({annotation['id'] for annotation in table['annotations']} - {0}) == len(table['annotations'])
        for index, name in enumerate(names):
            scene = make_scene(split, index, handwriting, (96, 160), seed=3)
            np.testing.assert_array_equal(np.asarray(Image.open(root / 'images' / split / name)), scene.image)
            noted = [entry['category_id'] for entry in table['annotations'] if entry['image_id'] == index]
            assert noted == [label + 1 for label in scene.labels]


def test_classes_have_distinct_colours() -> None:
    assert CLASSES == tuple('0123456789')
    assert METAINFO.classes == ('background', *CLASSES) and METAINFO.palette[0] == [0, 0, 0]
    colours = METAINFO.palette[1:]
    distances = [np.linalg.norm(np.subtract(one, other)) for one, other in itertools.combinations(colours, 2)]
    assert len(colours) == 10 and min(distances) > 40


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_pycocotools_gives_a_perfect_prediction_ap_1(root: Path, kind: str) -> None:
    def ap(shift: int) -> float:
        predictions = [
            {key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': 1.0}
            for annotation in coco(root, 'validation')['annotations']
        ]
        for prediction in predictions:
            mask = np.roll(coco_masks.decode(prediction['segmentation']), shift, axis=1)
            prediction['segmentation'] = coco_masks.encode(np.asfortranarray(mask))
            prediction['bbox'] = coco_masks.toBbox(prediction['segmentation']).tolist()
        evaluation = COCOeval(truth, truth.loadRes(predictions), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats[0]

    COCO = pytest.importorskip('pycocotools.coco').COCO
    COCOeval = pytest.importorskip('pycocotools.cocoeval').COCOeval
    truth = COCO(str(root / 'annotations' / 'instances_validation.json'))
    assert ap(shift=0) == pytest.approx(1)
    assert ap(shift=2) < 0.9


def test_mmdet_reads_it(root: Path) -> None:
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset

    load = {'type': 'mmdet.LoadAnnotations', 'with_bbox': True, 'with_mask': True}
    for split, count in COUNTS.items():
        dataset = CocoDataset(
            data_root=str(root),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix={'img': f'images/{split}/'},
            metainfo={'classes': CLASSES, 'palette': METAINFO.palette[1:]},
            pipeline=[{'type': 'LoadImageFromFile'}, load],
        )
        assert len(dataset) == count
        for index, sample in enumerate(dataset):
            scene = make_scene(split, index, load_handwriting(split), (96, 160), seed=3)
            np.testing.assert_array_equal(sample['img'], scene.image[..., ::-1])  # mmcv reads BGR
            np.testing.assert_array_equal(sample['gt_bboxes'].numpy(), scenes.tight_boxes(scene.masks))
            np.testing.assert_array_equal(sample['gt_bboxes_labels'], scene.labels)
            np.testing.assert_array_equal(sample['gt_masks'].to_ndarray(), scene.masks)


def test_mmseg_reads_it(root: Path) -> None:
    pytest.importorskip('mmseg')
    from mmseg.datasets import BaseSegDataset

    for split, count in COUNTS.items():
        dataset = BaseSegDataset(
            data_root=str(root),
            data_prefix={'img_path': f'images/{split}', 'seg_map_path': f'annotations/{split}'},
            img_suffix='.png',
            reduce_zero_label=True,
            metainfo=METAINFO,
            pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations'}],
        )
        assert len(dataset) == count
        for index, sample in enumerate(dataset):
            scene = make_scene(split, index, load_handwriting(split), (96, 160), seed=3)
            expected = np.zeros((96, 160), np.uint8)
            for mask, label in zip(scene.masks, scene.labels, strict=True):
                expected[mask] = label + 1
            np.testing.assert_array_equal(sample['img'], scene.image[..., ::-1])
            np.testing.assert_array_equal(sample['gt_seg_map'], expected)


def test_complete_data_set_is_kept(root: Path) -> None:
    before = {path: os.stat(path).st_mtime_ns for path in root.rglob('*')}
    assert make_digits(root, **ARGUMENTS) is False
    assert before == {path: os.stat(path).st_mtime_ns for path in root.rglob('*')}


def test_data_set_of_an_earlier_version_is_kept(small: Path) -> None:
    """It has checksums in its digits.json."""
    parameters = json.loads((small / 'digits.json').read_text())
    manifest = {'format': 'mmrope digits', 'parameters': parameters, 'sha256': {'images/training': ''}}
    (small / 'digits.json').write_text(json.dumps(manifest))
    assert make_digits(small, 1, 1, 32, progress=False) is False
    with pytest.raises(ValueError, match=r'\bseed=0\b.*\b1\b'):
        make_digits(small, 1, 1, 32, seed=1, progress=False)


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('images', 9, r'\bimages=8\b.*\b9\b'),
        ('val_images', 5, r'\bval_images=4\b.*\b5\b'),
        ('size', (96, 96), r'\bsize=\[96, 160\].*\[96, 96\]'),
        ('seed', 4, r'\bseed=3\b.*\b4\b'),
    ],
)
def test_data_set_of_other_arguments_is_refused(root: Path, name: str, value: int | tuple[int, int], said: str) -> None:
    before = contents(root)
    with pytest.raises(ValueError, match=rf'{root}\b.*{said}'):
        make_digits(root, **ARGUMENTS | {name: value})
    assert contents(root) == before


@pytest.mark.parametrize('manifest', [None, '', '[]', '{}', '{"parameters": {}}', '{"parameters": 3}'])
def test_folder_of_someone_else_is_never_touched(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
    if manifest is not None:
        (tmp_path / 'mine' / 'digits.json').write_text(manifest)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r'\bmine\b.*digits\.json'):
        make_digits(tmp_path / 'mine', 1, 1, 32, progress=False)
    assert contents(tmp_path) == before


def test_file_in_the_place_of_the_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / 'digits').write_text('a file')
    with pytest.raises(ValueError, match=r'/digits\b.*digits\.json'):
        make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    assert (tmp_path / 'digits').read_text() == 'a file'


def test_file_that_appears_while_scenes_are_drawn_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appear(*args: Any) -> Any:
        (tmp_path / 'digits').mkdir(exist_ok=True)
        (tmp_path / 'digits' / 'model.pth').write_text('mine')
        return scenes.compose_scene(*args)

    monkeypatch.setattr(digits, 'compose_scene', appear)
    with pytest.raises(OSError):
        make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    assert contents(tmp_path) == {'digits/model.pth': b'mine'}


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / 'digits').mkdir()
    assert make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    assert make_digits(tmp_path / 'digits', 1, 1, 32, progress=False) is False


def test_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'digits').symlink_to('disk')
    make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    assert (tmp_path / 'digits').is_symlink() and (tmp_path / 'disk' / 'digits.json').is_file()


def interrupt_at(call: int, error: type[BaseException]) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def compose(*args: Any) -> Any:
        if next(numbers) == call:
            raise error('stop')
        return scenes.compose_scene(*args)

    return compose


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error) -> None:
    monkeypatch.setattr(digits, 'compose_scene', interrupt_at(3, error))
    with pytest.raises(error, match='stop'):
        make_digits(tmp_path / 'digits', 5, 1, 32, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_folder_appears_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compose(*args: Any) -> Any:
        assert not (tmp_path / 'digits').exists()
        return scenes.compose_scene(*args)

    monkeypatch.setattr(digits, 'compose_scene', compose)
    make_digits(tmp_path / 'digits', 2, 1, 32, progress=False)
    assert list(tmp_path.iterdir()) == [tmp_path / 'digits']


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *itertools.product(['images', 'val_images'], [0, -1, 10**6 + 1, 2.0, '3', True, None]),
        *itertools.product(['size'], [31, 4097, 0, -128, 128.0, '128', None, True]),
        *itertools.product(['size'], [(64,), (64, 31), (31, 64), (64, 64, 3), (64, 64.0)]),
        *itertools.product(['seed'], [-1, 0.5, None, 2**64]),
    ],
)
def test_argument_out_of_range_is_named(tmp_path: Path, name, value) -> None:
    pair = isinstance(value, tuple) and len(value) == 2
    named = next(side for side in value if repr(side) != '64') if pair else value
    with pytest.raises(ValueError, match=rf'^{name}\b.* {re.escape(repr(named))}$'):
        make_digits(tmp_path / 'digits', **{'images': 1, 'val_images': 1, 'progress': False} | {name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('module', 'package'), [('sklearn.datasets', 'scikit-learn'), ('pycocotools.mask', 'pycocotools')]
)
def test_missing_package_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{package}.*mmrope\[digits\]'):
        make_digits(tmp_path / 'digits', 1, 1, 32, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_import_is_light() -> None:
    code = 'import sys, mmrope.datasets.digits; print(*sys.modules)'
    package = Path(digits.__file__).parents[2]
    loaded = subprocess.run([sys.executable, '-c', code], cwd=package, capture_output=True, text=True, check=True)
    assert not {'torch', 'mmdet', 'mmseg', 'sklearn', 'pycocotools'} & set(loaded.stdout.split())
