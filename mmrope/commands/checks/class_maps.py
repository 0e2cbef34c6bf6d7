"""Checks of the class maps of a semantic segmentation set: their values, channels and sizes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...text import few
from .files import DataError
from .images import ImageReader, Size, describe_unlike, header_size, in_threads, spread, unlike

# Pixels that are decoded in all: about a second.
MOST_PIXELS = 2 * 10**8
MODES_OF_16_BITS = ('I', 'F')
Sample = Mapping[str, Any]


class ClassMap(NamedTuple):
    """A class map as the pipeline reads it: its shape, its values, and those of the file that exceed eight bits."""

    path: str
    shape: tuple[int, ...]
    values: frozenset[int]
    cut_off: list[int]


def check_maps(
    samples: Sequence[Sample],
    load: Callable[[Sample], np.ndarray],
    number: int,
    ignored: Collection[int],
    training: bool,
) -> list[str]:
    """Check the values of class maps: of all, or of a sample where they are many.

    Args:
        samples: as the data set lists them.
        load: reads the class map of a sample as the pipeline does.
        number: of classes.
        ignored: values that the losses ignore.
        training: whether losses are computed, which fail on a value that a metric ignores.

    Returns:
        A note for each finding that may be intended.

    Raises:
        DataError: for maps of several channels, values of no class, or nothing but ignored pixels.
    """
    number = max(number, 2)  # a single class is told from the background
    size = header_size(samples[0]['seg_map_path']) or Size(1000, 1000)
    chosen = spread(samples, max(50, min(1000, MOST_PIXELS // (size.width * size.height))))
    looks = in_threads(lambda sample: _look_at(sample, load), chosen)
    maps = [look for look in looks if isinstance(look, ClassMap)]
    failed = {sample['seg_map_path']: look for sample, look in zip(chosen, looks) if isinstance(look, Exception)}
    notes = []
    if failed:
        reason = next(iter(failed.values()))
        notes.append(f'has class maps that cannot be read: {few(failed)} ({type(reason).__name__}: {reason})')
    for look in maps:
        if len(look.shape) > 2:
            raise DataError(
                f'has class maps with {look.shape[2]} channels, as {look.path}: store one channel with the class of '
                "each pixel, or read palettes with imdecode_backend='pillow' in LoadAnnotations"
            )
        for value in look.cut_off:
            if value % 256 not in ignored:
                raise DataError(f'has a class map with the value {value}, read as {value % 256} (8 bits): {look.path}')
    notes += _check_values(maps, samples[0], number, ignored, training)
    if training and maps:
        notes += _check_variety(maps, {*ignored}, complete=len(maps) == len(samples))
    return notes


def _look_at(sample: Sample, load: Callable[[Sample], np.ndarray]) -> ClassMap | Exception:
    """Read a class map; return the error of one that cannot be read, which the run itself raises when it reaches it."""
    path = sample['seg_map_path']
    stored: np.ndarray = np.empty(0)
    try:
        array = load(sample)
    except Exception as error:
        return error
    with suppress(OSError, ValueError), Image.open(path) as image:
        stored = np.asarray(image) if image.mode.startswith(MODES_OF_16_BITS) else stored
    values = np.unique(array) if array.dtype != np.uint8 else np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    cut_off = np.unique(stored[stored > 255]) if array.dtype == np.uint8 else np.empty(0)
    return ClassMap(path, array.shape, frozenset(values.tolist()), cut_off.astype(int).tolist())


def _check_values(
    maps: Sequence[ClassMap], sample: Sample, number: int, ignored: Collection[int], training: bool
) -> list[str]:
    shift = int(bool(sample.get('reduce_zero_label')))
    wrong: dict[int, list[str]] = {}
    for look in maps:
        for value in look.values.difference(ignored, range(number)):
            wrong.setdefault(value + shift, []).append(look.path)
    if not wrong:
        return []
    last = len(sample.get('label_map') or range(number)) - 1 + shift
    listed = few([f'{value} in {few(paths, 2)}' for value, paths in sorted(wrong.items())])
    void = ['0'] * shift + [str(value) for value in sorted(ignored)]
    text = (
        f'has class maps with values of no class: {listed}; classes are {shift} to {last}, '
        f'and pixels to ignore are {" or ".join(void) or "not allowed"}'
    )
    if training:
        raise DataError(text)
    return [f'{text}: the metrics ignore these pixels']


def _check_variety(maps: Sequence[ClassMap], ignored: set[int], complete: bool) -> list[str]:
    """Check that there are classes to tell apart; without all maps that is a note at most."""
    void = [look for look in maps if look.values <= ignored]
    values = frozenset[int]().union(*(look.values for look in maps))
    if void and (len(void) < len(maps) or not complete):
        return [f'has {len(void)} class maps of ignored pixels only (of {len(maps)} checked), as {void[0].path}']
    if void:
        raise DataError(f'has nothing to learn from: all class maps hold ignored pixels only, {sorted(values)}')
    classes = values - ignored
    if len(classes) > 1:
        return []
    text = f'has only one class, {min(classes)}, in the {len(maps)} class maps checked, as {maps[0].path}'
    if values == {0, 255} and classes == {0} and complete:
        raise DataError(f'{text}: 255 is ignored; store two classes as 0 and 1, not as 0 and 255')
    return [text]


def check_map_sizes(
    samples: Sequence[Sample], read: ImageReader, resized: Collection[bool], training: bool
) -> list[str]:
    """Check that class maps are as large as their images, by the headers of a sample of the files.

    Args:
        samples: as the data set lists them.
        read: the pipeline's reader of images.
        resized: whether the ratio of the sides is kept, for each step of the pipeline that resizes.
        training: whether images and maps are resized and cropped together; a metric compares them pixel by pixel.

    Returns:
        A note if resizing makes them equal.

    Raises:
        DataError: if their sizes differ.
    """
    chosen = spread(samples)
    maps = in_threads(header_size, [sample['seg_map_path'] for sample in chosen])
    expected = {sample['img_path']: size[:2] for sample, size in zip(chosen, maps) if size is not None}
    wrong = unlike(expected, read)
    if not wrong:
        return []
    text = describe_unlike(next(iter(wrong)), wrong, expected, 'class map')
    similar = all(size.width * expected[path][1] == size.height * expected[path][0] for path, size in wrong.items())
    if training and resized and (similar or not all(resized)):
        return [text]
    raise DataError(text)
