"""Sizes of images, from the headers of their files and as a pipeline reads them."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from PIL import Image

# EXIF's orientations that exchange width and height.
TURNED = (5, 6, 7, 8)
ORIENTATION = 0x0112
# Of more images than this a sample is opened: a second or two, even if a file server has them.
MOST_OPENED = 500
# Images decoded to see how orientations are read.
MOST_DECODED = 10
T = TypeVar('T')


class Size(NamedTuple):
    """Width and height of an image in pixels, and the EXIF orientation of its file."""

    width: int
    height: int
    orientation: int = 1

    def __str__(self) -> str:
        return f'{self.width} x {self.height}'

    @property
    def turned(self) -> 'Size':
        """The size after the EXIF orientation has been applied."""
        return Size(self.height, self.width, self.orientation) if self.orientation in TURNED else self


def spread(items: Sequence[T], most: int = MOST_OPENED) -> list[T]:
    """Draw a sample from all over a sequence, the same one each time: one item of each of ``most`` equal parts."""
    if len(items) <= most:
        return list(items)
    draw = random.Random(0)
    edges = [i * len(items) // most for i in range(most + 1)]
    return [items[draw.randrange(start, end)] for start, end in zip(edges, edges[1:])]


def in_threads(function: Callable[[T], Any], items: Iterable[T]) -> list[Any]:
    """Apply a function that waits for files to many items at once."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))


def header_size(path: str) -> Size | None:
    """Read the size of an image as its file stores it; ``None`` for a file that PIL cannot read."""
    try:
        with Image.open(path) as image:
            return Size(*image.size, image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def read_sizes(expected: Mapping[str, tuple[int, int]], read: Callable[[str], tuple[int, int]]) -> dict[str, Size]:
    """Return the sizes of images as a pipeline reads them, from their headers.

    The decoder and its settings decide whether the orientation of a file counts: a few files that have one, or another
    size than expected, are decoded to see.

    Args:
        expected: width and height by the path of an image.
        read: decodes an image as the pipeline does, and returns its width and height.

    Returns:
        The sizes by path, without the files that are no images.
    """
    stored = {path: size for path, size in zip(expected, in_threads(header_size, expected)) if size is not None}
    odd = [path for path, size in stored.items() if size.turned is not size or size[:2] != tuple(expected[path])]
    decoded = {}
    for path in odd[:MOST_DECODED]:
        with suppress(Exception):  # of a file cut short, say, which the host names when it comes to it
            decoded[path] = Size(*read(path), stored[path].orientation)
    turns = any(stored[path].turned is not stored[path] and size != stored[path] for path, size in decoded.items())
    return {path: decoded.get(path, size.turned if turns else size) for path, size in stored.items()}


def remedy(size: Size, expected: tuple[int, int]) -> str:
    """Say what to do about an image that is read in another size than expected, maybe because of EXIF."""
    if size.orientation == 1 or (size.height, size.width) != tuple(expected):
        return ': scale one of them to the size of the other'
    return (
        f', because EXIF turns it (orientation {size.orientation}): set color_type="color_ignore_orientation" in '
        'LoadImageFromFile of each pipeline, or save it turned and without EXIF'
    )
