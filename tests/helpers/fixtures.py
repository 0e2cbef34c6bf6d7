"""Fixtures of tests that run commands: a tiny data set, configs that read it, and a clean process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.tiny import CONFIGS, IMAGES, isolated


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of bright boxes on noise, with COCO annotations and class maps."""
    folder = tmp_path_factory.mktemp('tiny')
    for name in ('images', 'maps'):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(IMAGES):
        image = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
        classes = np.zeros((64, 64), np.uint8)
        for _ in range(1 + index % 2):
            x, y = (int(value) for value in rng.integers(0, 32, 2))
            w, h = (int(value) for value in rng.integers(20, 32, 2))
            image[y : y + h, x : x + w] = 220
            classes[y : y + h, x : x + w] = 1
            annotations.append(
                dict(id=len(annotations) + 1, image_id=index, category_id=1, bbox=[x, y, w, h], area=w * h, iscrowd=0)
            )
        cv2.imwrite(str(folder / 'images' / f'{index}.png'), image)
        cv2.imwrite(str(folder / 'maps' / f'{index}.png'), classes)
        images.append(dict(id=index, file_name=f'{index}.png', width=64, height=64))
    coco = dict(images=images, annotations=annotations, categories=[dict(id=1, name='box')])
    (folder / 'annotations.json').write_text(json.dumps(coco))
    return folder


@pytest.fixture(scope='session')
def write_config(tiny_data: Path) -> Callable[..., str]:
    """Return a function that writes a config of one kind to a folder."""

    def write(folder: Path, kind: str) -> str:
        path = folder / f'{kind}.py'
        path.write_text(CONFIGS[kind].replace('{data}', str(tiny_data)))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def isolated_test() -> Iterator[None]:
    with isolated():
        yield
