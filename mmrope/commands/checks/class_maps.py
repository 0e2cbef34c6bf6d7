"""Checks of a semantic segmentation set: which images have a class map, and which classes the maps hold."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...text import few
from .annotations import DataError, absent_files
from .images import Size, header_size, in_threads, read_sizes, remedy, spread

# Pixels that are decoded in all: about a second.
MOST_PIXELS = 2 * 10**8
MODES_OF_16_BITS = ('I', 'F')
Sample = Mapping[str, Any]


class ClassMap(NamedTuple):
    """A class map as the pipeline reads it.

    Attributes:
        path: of the file.
        mode: PIL's name for the kind of the image.
        shape: of the array.
        values: its classes.
        cut_off: values of the file past 255, of which the pipeline keeps the last eight bits.
    """

    path: str
    mode: str
    shape: tuple[int, ...]
    values: tuple[int, ...]
    cut_off: tuple[int, ...]


def check_pairs(
    samples: Sequence[Sample], images: str, maps: str | None, suffixes: tuple[str, str], listed: bool
) -> None:
    """Check that each sample of a data set has an image and a class map.

    Args:
        samples: as the data set lists them, with ``img_path`` and ``seg_map_path``.
        images: folder of the images.
        maps: folder of the class maps; ``None`` if the data set has none.
        suffixes: endings of the names of images and of maps.
        listed: whether a file lists the names; otherwise all images in the folder are samples.

    Raises:
        DataError: if there is no sample, or one without a name, an image or a map, or with an empty file.
    """
    if not samples:
        raise DataError('lists no images' if listed else f'has no images that end in {suffixes[0]}{_endings(images)}')
    blank = [str(i + 1) for i, sample in enumerate(samples) if sample['img_path'] == os.path.join(images, suffixes[0])]
    if listed and blank:
        raise DataError(f'has blank lines, which are read as images without a name: line {few(blank)}; remove them')
    verb = 'names' if listed else 'has'
    parts = (('images', 'img_path', images, suffixes[0]), ('class maps', 'seg_map_path', maps, suffixes[1]))
    for what, key, folder, suffix in parts if maps is not None else parts[:1]:
        missing, empty = absent_files([sample[key] for sample in samples if key in sample])
        stems = [os.path.relpath(path, folder).removesuffix(suffix) for path in sorted(missing)]
        if stems:
            doubled = what == 'images' and any(stem.endswith(suffix) for stem in stems)
            hint = f'; names are listed without img_suffix={suffix!r}, which is added to them' if doubled else ''
            lack = 'that do not exist' if what == 'images' else 'without a class map'
            raise DataError(f'{verb} images {lack} (*{suffix}) in {folder}: {few(stems)}{hint}')
        if empty:
            raise DataError(f'{verb} {what} that are empty files: {few(empty)}')


def _endings(folder: str) -> str:
    """Name the suffixes that the files of a folder do have."""
    names = [name for name in os.listdir(folder) if not name.startswith('.')]
    endings = sorted({os.path.splitext(name)[1] for name in names} - {''})
    return f', but {few(endings)}: set img_suffix' if endings else ''


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
        training: whether losses are computed; they fail on a value that a metric ignores.

    Returns:
        A note for each thing that may be right.

    Raises:
        DataError: for maps of several channels, values of no class, or nothing but ignored pixels.
    """
    number = max(number, 2)  # a single class is told from the background
    size = header_size(samples[0]['seg_map_path']) or Size(1000, 1000)
    chosen = spread(samples, max(50, min(1000, MOST_PIXELS // (size.width * size.height))))
    looks = in_threads(lambda sample: _look_at(sample, load), chosen)
    maps = [look for look in looks if isinstance(look, ClassMap)]
    failed = {sample['seg_map_path']: look for sample, look in zip(chosen, looks) if not isinstance(look, ClassMap)}
    notes = []
    if failed:
        reason = next(iter(failed.values()))
        notes.append(f'has class maps that cannot be read: {few(failed)} ({type(reason).__name__}: {reason})')
    _check_kinds(maps, ignored)
    notes += _check_values(maps, samples[0], number, ignored, training)
    if training and maps:
        notes += _check_variety(maps, ignored, number, complete=len(maps) == len(samples))
    return notes


def _look_at(sample: Sample, load: Callable[[Sample], np.ndarray]) -> ClassMap | Exception:
    """Read a class map; return the error of one that cannot be read, which the host raises when it comes to it."""
    path, mode = sample['seg_map_path'], 'unknown to PIL'
    stored: np.ndarray = np.empty(0)
    try:
        array = load(sample)
    except Exception as error:
        return error
    try:
        with Image.open(path) as image:
            mode = image.mode
            stored = np.asarray(image) if mode.startswith(MODES_OF_16_BITS) else stored
    except (OSError, ValueError):
        pass
    values = np.unique(array) if array.dtype != np.uint8 else np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    cut_off = np.unique(stored[stored > 255]) if array.dtype == np.uint8 else ()
    return ClassMap(path, mode, array.shape, tuple(map(int, values)), tuple(map(int, cut_off)))


def _check_kinds(maps: Sequence[ClassMap], ignored: Collection[int]) -> None:
    """Check that maps have one channel, and that no value is cut to eight bits and so becomes another class."""
    coloured = [look for look in maps if len(look.shape) > 2]
    if coloured:
        first = coloured[0]
        advice = (
            "let LoadAnnotations read palettes, with imdecode_backend='pillow'"
            if first.mode == 'P'
            else 'store the number of the class of each pixel, in one channel or with a palette'
        )
        raise DataError(
            f'has class maps of {first.shape[2]} channels, as {first.path} ({first.mode}; '
            f'{len(coloured)} of {len(maps)} looked at): {advice}'
        )
    for look in maps:
        for value in look.cut_off:
            if value % 256 not in ignored:
                text = f'the value {value}, which is read as {value % 256} (8 bits)'
                raise DataError(f'has a class map with {text}: {look.path}')


def _check_values(
    maps: Sequence[ClassMap], sample: Sample, number: int, ignored: Collection[int], training: bool
) -> list[str]:
    shift = int(bool(sample.get('reduce_zero_label')))
    wrong: dict[int, list[str]] = {}
    for look in maps:
        for value in set(look.values) - set(ignored) - set(range(number)):
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


def _check_variety(maps: Sequence[ClassMap], ignored: Collection[int], number: int, complete: bool) -> list[str]:
    """Check that there are classes to tell apart."""
    void = [look for look in maps if set(look.values) <= set(ignored)]
    both = {value for look in maps for value in look.values}
    classes = both - set(ignored)
    seen = 'all' if complete else f'the {len(maps)} looked at of'
    if not classes:
        values = few(sorted(map(str, both)))
        text = f'has nothing to learn from: {seen} class maps are of ignored pixels only ({values}), as {maps[0].path}'
        if complete:
            raise DataError(text)
        return [text]
    notes = []
    if void:
        example = f'{void[0].path} (value {few(map(str, void[0].values))})'
        notes.append(f'has {len(void)} class maps of ignored pixels only, of {len(maps)} looked at, as {example}')
    if len(classes) == 1 and number > 1:
        text = f'has one class only, {min(classes)}, in {seen} class maps, as {maps[0].path}'
        if both == {0, 255} and classes == {0} and complete:
            raise DataError(f'{text}: 255 is ignored; two classes are stored as 0 and 1, not as 0 and 255')
        notes.append(f'{text}: the other pixels are ignored' if both > classes else text)
    return notes


def check_map_sizes(
    samples: Sequence[Sample], read: Callable[[str], tuple[int, int]], resized: Collection[bool], training: bool
) -> list[str]:
    """Check that class maps are as large as their images, by the headers of a sample of the files.

    Args:
        samples: as the data set lists them.
        read: decodes an image as the pipeline does, and returns its width and height.
        resized: whether the ratio of the sides is kept, for each step of the pipeline that resizes.
        training: whether images and maps are resized and cut together; a metric compares them pixel by pixel.

    Returns:
        A note where resizing makes them equal.

    Raises:
        DataError: if their sizes differ.
    """
    chosen = spread(samples)
    maps = in_threads(header_size, [sample['seg_map_path'] for sample in chosen])
    expected = {sample['img_path']: size[:2] for sample, size in zip(chosen, maps) if size is not None}
    sizes = read_sizes(expected, read)
    wrong = {path: size for path, size in sizes.items() if size[:2] != expected[path]}
    if not wrong:
        return []
    path, size = next(iter(wrong.items()))
    width, height = expected[path]
    text = (
        f'has images of another size than their class maps, {len(wrong)} of {len(sizes)} looked at, as {path}: '
        f'{size} where the map is {width} x {height}{remedy(size, (width, height))}'
    )
    similar = all(size.width * expected[path][1] == size.height * expected[path][0] for path, size in wrong.items())
    if training and resized and (similar or not all(resized)):
        return [text]
    raise DataError(text)
