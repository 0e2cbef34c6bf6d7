"""Images of single digits: what they show, and that they are made once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrope.datasets.digits import load_handwriting
from mmrope.datasets.scenes import DIGIT_HEIGHT, tight_boxes
from mmrope.datasets.single_digits import OFFSET, ZOOM, draw_single_digit, make_single_digits

FEW = dict(images=3, val_images=12, size=64, progress=False)


def test_a_digit_is_bright_on_dark_whole_and_near_the_middle() -> None:
    """Its height and its place are within what is documented, and no edge cuts it: a frame of one pixel stays dark."""
    glyphs, _ = load_handwriting('training')
    heights, centres = [], []
    for seed in range(150):
        image = np.asarray(draw_single_digit(np.random.default_rng(seed), glyphs[seed], 96))
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8
        ink = image.min(2) > 128
        assert 0.01 < ink.mean() < 0.4
        ((x0, y0, x1, y1),) = tight_boxes(ink[None])
        assert x0 > 0 and y0 > 0 and x1 < 96 and y1 < 96
        heights.append((y1 - y0) / 96)
        centres.append(((x0 + x1) / 192 - 0.5, (y0 + y1) / 192 - 0.5))
    low, high = (ZOOM * height for height in DIGIT_HEIGHT)
    assert 0.75 * low < min(heights) < 1.2 * low and 0.8 * high < max(heights) < 1.25 * high
    assert 0.7 * OFFSET < np.abs(centres).max() < OFFSET + 0.02


def test_every_digit_is_written_in_the_folder_of_its_class(tmp_path: Path) -> None:
    assert make_single_digits(tmp_path / 'digits', **FEW)
    for split, count in (('training', 3), ('validation', 12)):
        glyphs, labels = load_handwriting(split)
        expected = {f'{labels[index]}/{index:06d}.png' for index in range(count)}
        folder = tmp_path / 'digits' / split
        assert {path.relative_to(folder).as_posix() for path in folder.rglob('*.png')} == expected
        assert len(list(folder.iterdir())) == 10  # also where a class has no digit
        number = 0 if split == 'training' else 1
        drawn = draw_single_digit(np.random.default_rng([0, number, 2, 1]), glyphs[2], 64)
        written = Image.open(folder / str(labels[2]) / '000002.png')
        np.testing.assert_array_equal(np.asarray(written), np.asarray(drawn))


def test_more_digits_than_handwriting_repeat_it_drawn_anew(tmp_path: Path) -> None:
    count = len(load_handwriting('validation')[0])
    make_single_digits(tmp_path / 'digits', **{**FEW, 'val_images': count + 1})
    (first,) = (tmp_path / 'digits/validation').rglob('000000.png')
    (again,) = (tmp_path / 'digits/validation').rglob(f'{count:06d}.png')
    assert first.parent == again.parent and first.read_bytes() != again.read_bytes()


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in 'ab':
        make_single_digits(tmp_path / name, **FEW)
        root = tmp_path / name
        contents.append({path.relative_to(root): path.read_bytes() for path in root.rglob('*.png')})
    assert contents[0] == contents[1] and len(contents[0]) == 15


def test_existing_data_stays(tmp_path: Path) -> None:
    make_single_digits(tmp_path / 'digits', **FEW)
    assert not make_single_digits(tmp_path / 'digits', **FEW)
    with pytest.raises(ValueError, match=r'\bseed=0\b.*\b1\b'):
        make_single_digits(tmp_path / 'digits', **{**FEW, 'seed': 1})
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/thesis.txt').touch()
    with pytest.raises(ValueError, match=r'/other\b.*single_digits\.json'):
        make_single_digits(tmp_path / 'other', **FEW)
    with pytest.raises(ValueError, match=r'size .*\(64, 96\)'):
        make_single_digits(tmp_path / 'oblong', **{**FEW, 'size': (64, 96)})
