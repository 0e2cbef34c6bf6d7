"""The digits data set: real handwriting in synthetic scenes, annotated for COCO and in the style of ADE20k.

The digits are scikit-learn's copy of the test set of E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten
Digits*, UCI Machine Learning Repository, 1998: 1797 images of 8 x 8 pixels.

    images/{training,validation}/000000.png ...           RGB
    annotations/{training,validation}/000000.png ...      uint8: 0 unlabelled (none is), 1 background, 2 - 11 digits
    annotations/instances_{training,validation}.json      COCO, run-length masks of the visible parts
    digits.json                                           the arguments of make_digits
"""

import importlib
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from .scenes import Scene, compose_scene, tight_boxes

CLASSES = tuple('0123456789')
SPLITS = ('training', 'validation')
VERSION = 1  # of the drawing code: another version draws other images


def make_digits(
    root: str | Path,
    images: int = 4000,
    val_images: int = 500,
    size: int | tuple[int, int] = 128,
    seed: int = 0,
    progress: bool = True,
) -> bool:
    """Write the data set to a folder, unless the folder holds it already.

    The same arguments give the same bytes, and scene i does not depend on the number of scenes.

    Args:
        root: folder, which appears only when it is complete.
        images: number of training scenes.
        val_images: number of validation scenes.
        size: (H, W) in pixels, or one number for both; the digits are legible from 64 on.
        seed: seed of all random choices.
        progress: whether to show a progress bar.

    Returns:
        Whether it was written; ``False`` if it was there, made with the same arguments.

    Raises:
        ValueError: if an argument is out of range, or the folder holds something else.
        ImportError: if scikit-learn or pycocotools is missing.
    """
    parameters = check_parameters(images, val_images, size, seed)

    def write(folder: Path) -> None:
        for split, count in zip(SPLITS, (images, val_images), strict=True):
            write_split(folder, split, count, tuple(parameters['size']), seed, progress)
        names = ['void', 'background', *CLASSES]  # of the values of label maps, for training with --data
        (folder / 'classes.txt').write_text(''.join(f'{name}\n' for name in names))

    return make_once(root, 'digits.json', parameters, write)


def make_once(root: str | Path, name: str, parameters: dict[str, Any], write: Callable[[Path], None]) -> bool:
    """Write a folder, which appears whole or not at all, unless it is there already.

    Args:
        root: the folder.
        name: name of the file in it that keeps ``parameters``.
        parameters: all that its content depends on.
        write: function that fills a given folder.

    Returns:
        Whether it was written.

    Raises:
        ValueError: if the folder holds something that was not made with these parameters.
    """
    target = Path(root).resolve()  # a link to a folder stays one
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        try:
            noted = json.loads((target / name).read_text())
            noted = noted.get('parameters', noted)  # earlier versions kept checksums beside them
            differ = [f'{key}={noted[key]}, not {value}' for key, value in parameters.items() if noted[key] != value]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f'{root} holds something else (there is no valid {name} in it): choose another folder'
            ) from None
        if differ:
            raise ValueError(
                f'{root} was made with {" and ".join(differ)}: choose another folder, or remove this one first'
            )
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{target.name}-', dir=target.parent) as staging:
        folder = Path(staging, 'whole')
        folder.mkdir()
        write(folder)
        (folder / name).write_text(json.dumps(parameters) + '\n')
        os.replace(folder, target)
    return True


def check_parameters(images: int, val_images: int, size: int | tuple[int, int], seed: int) -> dict[str, Any]:
    """Check the arguments of a data set, and return them as its folder keeps them.

    Raises:
        ValueError: if one is not an integer or is out of range.
    """
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, tuple | list) else []
    if len(sides) != 2:
        raise ValueError(f'size must be one integer or two, (H, W), got {size!r}')
    for name, value, least, most in (
        ('images', images, 1, 10**6),
        ('val_images', val_images, 1, 10**6),
        *(('size', side, 32, 4096) for side in sides),
        ('seed', seed, 0, 2**64 - 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f'{name} must be an integer from {least} to {most}, got {value!r}')
    return {'version': VERSION, 'images': images, 'val_images': val_images, 'size': sides, 'seed': seed}


def load_handwriting(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return glyphs (M, 8, 8) float64 from 0 to 1 and labels (M,) of a split: the first three quarters, or the rest.

    Neighbours come from one writer, so a single cut lets the splits share no sample and hardly any handwriting.
    """
    digits = _require('sklearn.datasets', 'scikit-learn').load_digits()
    cut = len(digits.target) * 3 // 4
    part = slice(cut) if split == 'training' else slice(cut, None)
    return digits.images[part] / 16, digits.target[part]


def make_scene(
    split: str, index: int, handwriting: tuple[np.ndarray, np.ndarray], size: tuple[int, int], seed: int
) -> Scene:
    """Draw scene number ``index`` of a split from its handwriting: a pure function of the arguments."""
    return compose_scene(np.random.default_rng([seed, SPLITS.index(split), index]), *handwriting, size)


def write_split(folder: Path, split: str, count: int, size: tuple[int, int], seed: int, progress: bool) -> None:
    """Write the images, the label maps and the COCO file of a split below a folder."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for kind in ('images', 'annotations'):
        (folder / kind / split).mkdir(parents=True)
    draw = partial(make_scene, split, handwriting=load_handwriting(split), size=size, seed=seed)
    with ProcessPoolExecutor() as pool:
        scenes = pool.map(draw, range(count), chunksize=16)
        for index, scene in enumerate(track(scenes, f'drawing {split} scenes', count, disable=not progress)):
            name = f'{index:06d}.png'
            Image.fromarray(scene.image).save(folder / 'images' / split / name)
            Image.fromarray(label_map(scene)).save(folder / 'annotations' / split / name)
            images.append({'id': index, 'file_name': name, 'height': size[0], 'width': size[1]})
            annotations += coco_annotations(scene, index, first_id=len(annotations) + 1)
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(coco_table(images, annotations)) + '\n')


def label_map(scene: Scene) -> np.ndarray:
    """Return the class of each pixel with ADE20k's numbering, (H, W) uint8: 1 background, 2 - 11 the digits; no 0."""
    labels = np.ones(scene.image.shape[:2], np.uint8)
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        labels[mask] = label + 2
    return labels


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Describe the visible part of each digit: run lengths, tight box (x, y, width, height), area in pixels."""
    masks = scene.masks
    boxes = tight_boxes(masks)
    boxes[:, 2:] -= boxes[:, :2]
    columns_first = np.asfortranarray(masks.transpose(1, 2, 0), np.uint8)  # (H, W, N), as pycocotools needs it
    runs = _require('pycocotools.mask', 'pycocotools').encode(columns_first)
    return [
        {
            'id': number,
            'image_id': image_id,
            'category_id': int(label) + 1,
            'bbox': box.tolist(),
            'area': int(mask.sum()),
            'iscrowd': 0,
            'segmentation': {'size': run['size'], 'counts': run['counts'].decode('ascii')},
        }
        for number, (label, box, mask, run) in enumerate(zip(scene.labels, boxes, masks, runs, strict=True), first_id)
    ]


def coco_table(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of a COCO file; categories 1 - 10 are the digits 0 - 9."""
    names = enumerate(CLASSES, 1)
    return {
        'info': {'description': 'mmrope digits: handwritten digits in made scenes', 'version': str(VERSION)},
        'licenses': [],
        'categories': [{'id': number, 'name': name, 'supercategory': 'digit'} for number, name in names],
        'images': images,
        'annotations': annotations,
    }


def _require(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"the digits data set needs {package}: pip install 'mmrope[digits]'") from error
