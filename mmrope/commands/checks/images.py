"""Sizes of images, as their files store them and as a pipeline reads them."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from PIL import Image

# EXIF orientations that exchange width and height.
TURNED = (5, 6, 7, 8)
ORIENTATION = 0x0112
# Of more images than this a sample is opened: a second or two, even on a file server.
MOST_OPENED = 500
# Images that are decoded to see how the pipeline treats orientations.
MOST_DECODED = 10
T = TypeVar('T')
ImageReader = Callable[[str], tuple[int, int]]  # decodes an image as the pipeline does; returns width and height


class Size(NamedTuple):
    """Width and height of an image in pixels, and the EXIF orientation of its file."""

    width: int
    height: int
    orientation: int = 1

    @property
    def turned(self) -> 'Size':
        """The size after the EXIF orientation has been applied."""
        return Size(self.height, self.width, self.orientation) if self.orientation in TURNED else self


def spread(items: Sequence[T], most: int = MOST_OPENED) -> list[T]:
    """Draw the same sample each time from all over a sequence: one item from each of ``most`` equal parts."""
    if len(items) <= most:
        return list(items)
    draw = random.Random(0)
    edges = [i * len(items) // most for i in range(most + 1)]
    return [items[draw.randrange(start, end)] for start, end in zip(edges, edges[1:])]


def in_threads(function: Callable[[T], Any], items: Iterable[T]) -> list[Any]:
    """Apply a function to many items at once, as it mostly waits for files."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))


def header_size(path: str) -> Size | None:
    """Read the size of an image from its header; ``None`` for a file that PIL cannot read."""
    try:
        with Image.open(path) as image:
            return Size(*image.size, image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def unlike(expected: Mapping[str, tuple[int, int]], read: ImageReader) -> dict[str, Size]:
    """Return the sizes of the images that a pipeline reads in another size than expected, by path.

    Sizes come from the headers. Whether an orientation counts depends on the decoder and its settings, so a few of the
    images that have one are decoded.

    Args:
        expected: width and height by the path of an image.
        read: the pipeline's reader.
    """
    stored = {path: size for path, size in zip(expected, in_threads(header_size, expected)) if size is not None}
    odd = [path for path, size in stored.items() if size.turned is not size or size[:2] != expected[path]]
    decoded = {}
    for path in odd[:MOST_DECODED]:
        with suppress(Exception):  # the run itself names a file that is cut short
            decoded[path] = Size(*read(path), stored[path].orientation)
    turns = any(stored[path].turned is not stored[path] and size != stored[path] for path, size in decoded.items())
    sizes = {path: decoded.get(path, size.turned if turns else size) for path, size in stored.items()}
    return {path: size for path, size in sizes.items() if size[:2] != expected[path]}


def describe_unlike(path: str, wrong: Mapping[str, Size], expected: Mapping[str, tuple[int, int]], source: str) -> str:
    """Say that images differ in size from their annotations, with an example and a remedy, as a predicate.

    Args:
        path: of the example.
        wrong: sizes of the images that differ, by path.
        expected: sizes of all images that were looked at.
        source: of the expected sizes.
    """
    size, (width, height) = wrong[path], expected[path]
    remedy = 'scale one of them to the size of the other'
    if size.orientation != 1 and (size.height, size.width) == (width, height):
        remedy = (
            f'EXIF turns it (orientation {size.orientation}), so set color_type="color_ignore_orientation" in '
            'LoadImageFromFile of each pipeline, or save the image turned and without EXIF'
        )
    return (
        f'has {len(wrong)} images (of {len(expected)} checked) of another size than their {source}, as {path}: read as '
        f'{size.width} x {size.height}, but {width} x {height} in its {source}; {remedy}'
    )
