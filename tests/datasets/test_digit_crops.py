"""Crops of single digits: what they show, and that they are made once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrope.datasets.digit_crops import MARGIN, OFFSET, SIDE, cut_digits, make_digit_crops
from mmrope.datasets.digits import load_handwriting, make_scene
from mmrope.datasets.scenes import Scene

FEW = dict(images=2, val_images=1, size=64, progress=False)


def test_a_crop_holds_its_digit_near_the_middle() -> None:
    """A scene of one white square, at the border: its share of the crop and its place are within what is documented."""
    for seed in range(20):
        image, shape = np.zeros((60, 80, 3), np.uint8), np.zeros((1, 60, 80), bool)
        shape[0, 10:30, 4:24] = True
        image[shape[0]] = 255
        ((crop, label),) = cut_digits(np.random.default_rng(seed), Scene(image, shape, np.array([7])), 96)
        white = np.asarray(crop)[..., 0] > 127
        assert crop.size == (96, 96) and label == 7
        rows, columns = (np.flatnonzero(white[24:72, 24:72].any(axis)) for axis in (1, 0))
        assert len(rows) and len(columns)
        side = 96 / (white.sum(1).max() / 1)  # of the crop over the square
        assert MARGIN[0] * 0.8 < side < MARGIN[1] * 1.05
        centre = np.argwhere(white).mean(0) / 96 - 0.5
        assert abs(centre[0]) < OFFSET + 0.02


def test_digits_of_the_scenes_are_written_by_class(tmp_path: Path) -> None:
    assert make_digit_crops(tmp_path / 'crops', **FEW)
    for split, count in (('training', 2), ('validation', 1)):
        labels = []
        for index in range(count):
            scene = make_scene(split, index, load_handwriting(split), (64, 64), seed=0)
            labels += [(int(label), f'{index:06d}_{number}') for number, label in enumerate(scene.labels)]
        written = sorted((int(path.parent.name), path.stem) for path in (tmp_path / 'crops' / split).rglob('*.png'))
        assert written == sorted(labels)
        assert len(list((tmp_path / 'crops' / split).iterdir())) == 10  # also where a class has no digit
    assert Image.open(next((tmp_path / 'crops').rglob('*.png'))).size == (SIDE, SIDE)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in 'ab':
        make_digit_crops(tmp_path / name, **FEW)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob('*.png')})
    assert contents[0] == contents[1]


def test_what_is_there_stays(tmp_path: Path) -> None:
    make_digit_crops(tmp_path / 'crops', **FEW)
    assert not make_digit_crops(tmp_path / 'crops', **FEW)
    with pytest.raises(ValueError, match='holds something else'):
        make_digit_crops(tmp_path / 'crops', **{**FEW, 'seed': 1})
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/thesis.txt').touch()
    with pytest.raises(ValueError, match='holds something else'):
        make_digit_crops(tmp_path / 'other', **FEW)
