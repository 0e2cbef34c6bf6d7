"""Small data sets in the layouts and with the quirks of common labelling tools: bright boxes on noise."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask

SIZE = (56, 72)  # (H, W)


def draw(path: Path, seed: int) -> tuple[list[tuple[int, int, int, int]], np.ndarray]:
    """Write an image; return its boxes ``(x, y, w, h)`` and the number of the box of each pixel, 0 for none."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (*SIZE, 3), dtype=np.uint8)
    numbers, boxes = np.zeros(SIZE, np.uint8), []
    for number in range(1, 3):
        x, y = (int(value) for value in rng.integers(0, 30, 2))
        w, h = (int(value) for value in rng.integers(16, 26, 2))
        image[y : y + h, x : x + w, number] = 220
        numbers[y : y + h, x : x + w] = number
        boxes.append((x, y, w, h))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return boxes, numbers


def annotation(number: int, image: Any, category: Any, box: Sequence[int], masks: str) -> dict[str, Any]:
    x, y, w, h = box
    full = np.zeros(SIZE, np.uint8, order='F')
    full[y : y + h, x : x + w] = 1
    runs = mask.encode(full)
    segmentation = {
        'none': [],
        'polygons': [[x, y, x + w, y, x + w, y + h, x, y + h]],
        'runs': {'size': list(SIZE), 'counts': runs['counts'].decode()},
    }[masks]
    return dict(
        id=number,
        image_id=image,
        category_id=category,
        bbox=list(box),
        area=w * h,
        iscrowd=0,
        segmentation=segmentation,
    )


def coco(
    folder: Path, names: Sequence[str], categories: list[dict[str, Any]], ids: Sequence[Any], masks: Sequence[str],
    first: int = 0, prefix: str = '', seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Draw images into a folder, and return their annotations.

    Args:
        folder: of the images.
        names: file names below it.
        categories: of the file.
        ids: ids of the categories of the first and of the second box of each image.
        masks: kind of the mask of each of them.
        first: id of the first image.
        prefix: before the file names in the annotations.
        seed: of the images.
    """
    images, annotations = [], []
    for index, name in enumerate(names, first):
        boxes, _ = draw(folder / name, seed + index)
        images.append(dict(id=index, file_name=prefix + name, height=SIZE[0], width=SIZE[1]))
        for box, category, kind in zip(boxes, ids, masks, strict=True):
            annotations.append(annotation(len(annotations), index, category, box, kind))
    return dict(images=images, annotations=annotations, categories=categories)


def instances(root: Path) -> Path:
    """COCO's own layout: ids with gaps and unsorted, polygons and run lengths, images in subfolders."""
    categories = [dict(id=40, name='green'), dict(id=7, name='blue')]
    for part, number in (('train', 5), ('val', 2)):
        names = [f'{"ab"[i % 2]}/{i}.png' for i in range(number)]
        content = coco(root / f'{part}2017', names, categories, (40, 7), ('polygons', 'runs'), first=100, seed=number)
        write(root / 'annotations' / f'instances_{part}2017.json', content)
    write(root / 'annotations' / 'captions_train2017.json', dict(images=[], annotations=[]))
    return root


def exported(root: Path) -> Path:
    """A folder for each part with annotations inside, and a root category first; boxes only, the same file names."""
    categories = [
        dict(id=0, name='things', supercategory='none'),
        dict(id=1, name='green', supercategory='things'),
        dict(id=2, name='blue', supercategory='things'),
    ]
    for seed, (part, number) in enumerate((('train', 5), ('valid', 2), ('test', 1))):
        names = [f'{i}.png' for i in range(number)]
        content = coco(root / part, names, categories, (1, 2), ('none', 'none'), seed=10 * seed)
        write(root / part / '_annotations.coco.json', content)
    return root


def single(root: Path) -> Path:
    """One file and one folder that is named in it; ids from 0, and neither areas nor iscrowd."""
    categories = [dict(id=0, name='green'), dict(id=1, name='blue')]
    names = [f'{i}.png' for i in range(5)]
    content = coco(root / 'photos', names, categories, (0, 1), ('polygons', 'polygons'), prefix='photos/')
    for ann in content['annotations']:
        del ann['area'], ann['iscrowd']
    write(root / 'result.json', content)
    return root


def segmentation(root: Path, layout: str, kind: str) -> Path:
    """Images with class maps.

    Args:
        root: folder to write.
        layout: ``'folders'`` of parts below images and annotations, ``'parts'`` that hold them, ``'lists'``, or
            ``'flat'``.
        kind: of the maps: ``'grey'`` or ``'palette'`` with void last, or ``'colours'`` with void first.
    """
    names = [f'{i}' for i in range(5)]
    colours = {'void': (0, 0, 0), 'background': (90, 90, 90), 'green': (0, 220, 0), 'blue': (0, 0, 220)}
    order = list(colours) if kind == 'colours' else [*list(colours)[1:], 'void']
    for index, name in enumerate(names):
        part = 'val' if index > 2 else 'train'
        below = {'folders': f'{{}}/{part}', 'parts': f'{part}/{{}}'}.get(layout, '{}')
        _, numbers = draw(root / below.format('images') / f'{name}.png', index)
        labels = np.array([order.index(name) for name in ('background', 'green', 'blue')], np.uint8)[numbers]
        labels[:4] = order.index('void')
        if kind == 'colours':
            image = Image.fromarray(np.array([colours[name] for name in order], np.uint8)[labels])
        else:
            image = Image.fromarray(labels)
            if kind == 'palette':
                image.putpalette([value for name in order for value in colours[name]])
        path = root / below.format('annotations') / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    if layout == 'lists':
        (root / 'train.txt').write_text('0.png\n1\n2\n\n')
        (root / 'val.txt').write_text('3\n4\n')
    lines = [f'{name} {" ".join(map(str, colours[name]))}' if kind == 'colours' else name for name in order]
    (root / 'classes.txt').write_text('\n'.join(lines) + '\n')
    return root


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
