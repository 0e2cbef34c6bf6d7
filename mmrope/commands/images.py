"""Finding and reading the image files that a command line names."""

import glob
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np

from ..text import few
from .errors import CommandError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')
DARK = 64  # of 255: the brightest value of a file that uses 14 of 16 bits


class UnreadableImageError(CommandError):
    """A file that cannot be read as an image."""


def find_images(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """List the images that files, folders and globs (``**`` for subfolders) name, each once.

    Hidden files in a folder are left out.

    Returns:
        The files, and a sentence for each name that gives none and for each folder that holds other files too.
    """
    files: dict[Path, None] = {}
    problems = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(other for other in path.iterdir() if other.is_file() and not other.name.startswith('.'))
            found = [other for other in inside if other.suffix.lower() in SUFFIXES]
            others = few(other.name for other in inside if other.suffix.lower() not in SUFFIXES)
            if others or not found:
                holds = f'{others} in {name}' if others else f'{name} has no images'
                problems.append(f'{holds}: the name of an image must end in {", ".join(SUFFIXES)}')
        else:
            matches = [path] if path.exists() else map(Path, sorted(glob.glob(str(path), recursive=True)))
            found = [other for other in matches if not other.is_dir()]
            problems += [] if found else [f'{name} does not exist']
        files |= dict.fromkeys(found)
    return list(files), problems


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as the hosts do: ``(H, W, 3)``, BGR, 8 bits, turned as its EXIF data says.

    Raises:
        UnreadableImageError: if it cannot be read.
    """
    try:
        image = mmcv.imread(path)
    except Exception:  # each decoder raises its own errors
        image = None
    if image is None:
        raise UnreadableImageError(f'{path} cannot be read as an image')
    return image


def note_on_depth(path: str | Path, image: np.ndarray) -> str | None:
    """Warn of an image of more than 8 bits that becomes dark when read as 8 bits, such as 12-bit data in a 16-bit file.

    Args:
        path: the file.
        image: the same, from :func:`read_image`.

    Returns:
        A sentence, or ``None`` for an image that is not dark or has 8 bits.
    """
    if image.max(initial=0) >= DARK:
        return None
    stored = mmcv.imread(path, flag='unchanged')
    if stored is None or stored.dtype == np.uint8:
        return None
    return (
        f'{path} holds {stored.dtype} values up to {stored.max():g}, which the model sees as 0 to {image.max()} of '
        f'255: scale them to the whole range of {stored.dtype} first'
    )
