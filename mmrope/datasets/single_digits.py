"""Images of single digits in one folder per class, for a classifier that trains in minutes on a CPU.

{training,validation}/{0, ..., 9}/000000.png ...        RGB, squares of one size
single_digits.json                                      the arguments of make_single_digits
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from .digits import SPLITS, check_parameters, load_handwriting, make_once
from .scenes import draw_digit, draw_texture, random_colour

ZOOM = 1.4  # of the digits, whose height before turning is then 0.27 - 0.62 of the image's
MAX_ANGLE = math.radians(10)
OFFSET = 0.1  # at most, of a digit's centre from the image's, as a share of its side
GROUND = 0.15  # brightness of the background, which makes digits easy to find


def make_single_digits(
    root: str | Path,
    images: int = 10_000,
    val_images: int = 900,
    size: int | tuple[int, int] = 96,
    seed: int = 0,
    progress: bool = True,
) -> bool:
    """Write the images to a folder, unless the folder holds them already.

    The same arguments give the same bytes, and image i does not depend on the number of images. Training and validation
    share no sample of handwriting.

    Args:
        root: folder, which appears only when it is complete.
        images: number of training images.
        val_images: number of validation images.
        size: side in pixels.
        seed: seed of all random choices.
        progress: whether to show a progress bar.

    Returns:
        Whether they were written; ``False`` if they were there, made with the same arguments.

    Raises:
        ValueError: if an argument is out of range, or the folder holds something else.
        ImportError: if scikit-learn is missing.
    """
    parameters = check_parameters(images, val_images, size, seed)
    side, width = parameters['size']
    if side != width:
        raise ValueError(f'size must be one integer or two equal ones, since single digits are square, got {size!r}')

    def write(folder: Path) -> None:
        for split, count in zip(SPLITS, (images, val_images), strict=True):
            write_split(folder / split, split, count, side, seed, progress)

    return make_once(root, 'single_digits.json', parameters, write)


def write_split(folder: Path, split: str, count: int, side: int, seed: int, progress: bool) -> None:
    """Write the images of a split, one folder per class; the numbers of uses of two glyphs differ by at most one."""
    glyphs, labels = load_handwriting(split)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for index in track(range(count), f'drawing {split} digits', disable=not progress):
        rng = np.random.default_rng([seed, SPLITS.index(split), index, 1])
        which = index % len(glyphs)
        draw_single_digit(rng, glyphs[which], side).save(folder / str(labels[which]) / f'{index:06d}.png')


def draw_single_digit(rng: np.random.Generator, glyph: np.ndarray, side: int) -> Image.Image:
    """Draw a glyph (8, 8) as a bright digit near the middle of a dark square of ``side`` pixels, RGB."""
    canvas = GROUND * draw_texture(rng, (side, side)).clip(0, 255)
    ink = draw_digit(rng, glyph, round(ZOOM * side), MAX_ANGLE)
    room = np.array(canvas.shape[:2]) - ink.shape
    shift = rng.uniform(-1, 1, 2) * np.minimum(OFFSET * side, room / 2)
    top, left = (room / 2 + shift).round().astype(int).clip(0, room)
    window = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
    colour = random_colour(rng, saturation=(0, 0.1), value=(0.9, 1))
    window += ink[..., None] * (colour - window)
    return Image.fromarray(canvas.round().astype(np.uint8))
