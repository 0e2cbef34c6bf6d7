"""Crops of single digits from made scenes, a folder a class: what a classifier learns from.

{training,validation}/{0, ..., 9}/000000_0.png ...      RGB, squares of one size; scene and digit
digit_crops.json                                        the arguments
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from mmrope.datasets.digits import SPLITS, check_parameters, load_handwriting, make_scene, staged
from mmrope.datasets.scenes import Scene, tight_boxes

SIDE = 96  # of a crop, in pixels: three times what models train at
MARGIN = (1.2, 1.6)  # side of a crop over the longer side of the digit's box
OFFSET = 0.1  # of a crop's centre from the box's, at most, in sides of the crop


def make_digit_crops(
    root: str | Path,
    images: int = 2500,
    val_images: int = 400,
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    progress: bool = True,
) -> bool:
    """Write the crops to a folder, unless they are there; it appears when it is complete, and not before.

    The arguments are those of ``make_digits`` and mean the scenes that the crops are cut from: about five digits each.
    The same arguments give the same bytes. Training and validation share no handwriting.

    Returns True when they were written, False when they were there, made with the same arguments.

    Raises ValueError when an argument is out of range or the folder holds something else, ImportError when scikit-learn
    is missing.
    """
    root = Path(root)
    parameters = {**check_parameters(images, val_images, size, seed), 'side': SIDE}
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        manifest = root / 'digit_crops.json'
        if not manifest.is_file() or json.loads(manifest.read_text()) != parameters:
            raise ValueError(f'{root} holds something else than digit crops of {parameters}: choose another folder')
        return False
    with staged(root) as folder:
        for split, count in zip(SPLITS, (images, val_images), strict=True):
            write_split(folder / split, split, count, tuple(parameters['size']), seed, progress)
        (folder / 'digit_crops.json').write_text(json.dumps(parameters) + '\n')
    return True


def write_split(folder: Path, split: str, count: int, size: tuple[int, int], seed: int, progress: bool) -> None:
    """Write the digits of all scenes of a split, a folder a class."""
    handwriting = load_handwriting(split)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for index in track(range(count), f'cutting {split} digits', disable=not progress):
        rng = np.random.default_rng([seed, SPLITS.index(split), index, 1])
        scene = make_scene(split, index, handwriting, size, seed)
        for number, (crop, label) in enumerate(cut_digits(rng, scene, SIDE)):
            crop.save(folder / str(label) / f'{index:06d}_{number}.png')


def cut_digits(rng: np.random.Generator, scene: Scene, side: int) -> Iterator[tuple[Image.Image, int]]:
    """Yield each digit of a scene with some of what lies around it, a square of ``side`` pixels, and its label.

    Beyond the border of the scene its mirror image goes on.
    """
    reach = max(scene.image.shape[:2]) // 2
    around = Image.fromarray(np.pad(scene.image, ((reach, reach), (reach, reach), (0, 0)), 'reflect'))
    for box, label in zip(tight_boxes(scene.masks), scene.labels, strict=True):
        width = max(box[2:] - box[:2]) * rng.uniform(*MARGIN)
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-OFFSET, OFFSET, 2) * width + reach
        corners = (*(centre - width / 2), *(centre + width / 2))
        yield around.resize((side, side), Image.Resampling.BICUBIC, box=corners), int(label)
