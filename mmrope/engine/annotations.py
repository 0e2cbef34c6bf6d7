"""What can be wrong with the files of a data set, found before a training takes hours to stumble over it."""

import json
import math
import mmap
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from ..text import few

# Larger annotation files are not parsed a second time: COCO's own 450 MB would take 10 s and 3 GB a process.
LARGEST_PARSED = 32 * 2**20
# With more images than this their sizes are not asked for one by one.
MOST_SIZED = 20_000


class DataError(ValueError):
    """A data set that cannot be meant; the text goes on after the name of the file."""


def check_readable(path: str) -> None:
    """Check that a file or folder can be read and holds something.

    Raises:
        FileNotFoundError: if it is not there.
        DataError: if it is empty or may not be read.
    """
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                filled = next(entries, None) is not None
        else:
            with open(path, 'rb') as file:
                filled = bool(file.read(1))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except PermissionError:
        raise DataError('may not be read: its rights, or those of a folder above it, forbid it') from None
    except OSError as error:
        raise DataError(f'cannot be read: {error.strerror}') from None
    if not filled:
        raise DataError('is empty')


def check_coco(
    path: str, classes: Sequence[str] | None, images: str | None, with_masks: bool, training: bool
) -> list[str]:
    """Check a file of COCO annotations.

    Files of more than ``LARGEST_PARSED`` bytes are only looked at for their end and their file names.

    Args:
        path: of the file.
        classes: the names that the data set takes, in order; ``None`` if it does not say.
        images: folder of the images; ``None`` if they are not on this machine.
        with_masks: whether masks are read.
        training: whether boxes are needed.

    Returns:
        A sentence for each thing that is passed over: boxes without an area, say.

    Raises:
        DataError: for the first thing that is wrong.
    """
    if os.path.getsize(path) > LARGEST_PARSED:
        names = _names_of_large_file(path)
        notes = []
    else:
        with open(path, 'rb') as file:
            try:
                coco = json.load(file)
            except ValueError as error:
                raise DataError(f'is no JSON, or is cut short: {error}') from None
        names = _check_parts(coco, training)
        _check_classes(coco['categories'], classes)
        notes = _check_instances(coco, classes, with_masks, training)
    if images is not None:
        check_files(images, names)
    return notes


def check_files(folder: str, names: Iterable[str]) -> None:
    """Check that files are in a folder: few of them one by one, which tells empty ones, many by listing their folders.

    Raises:
        DataError: if some are missing or empty.
    """
    paths = [os.path.join(folder, name) for name in names]
    if len(paths) <= MOST_SIZED:
        sizes = {path: _size(path) for path in paths}
        missing = [path for path, size in sizes.items() if size is None]
        empty = [path for path, size in sizes.items() if size == 0]
    else:
        folders = {os.path.dirname(path) for path in paths}
        there = {(head, tail) for head in folders if os.path.isdir(head) for tail in os.listdir(head)}
        missing, empty = [path for path in paths if os.path.split(path) not in there], []
    for found, what in ((missing, 'do not exist'), (empty, 'are empty files')):
        if found:
            raise DataError(f'names images that {what}: {few(found)}')


def check_maps(images: str, maps: str, image_suffix: str, map_suffix: str) -> None:
    """Check that each image below a folder has a class map below another.

    Raises:
        DataError: if there is no image, or one without a class map.
    """
    stems = _stems(images, image_suffix)
    if not stems:
        raise DataError(f'has no images that end in {image_suffix}')
    missing = sorted(stems - _stems(maps, map_suffix))
    if missing:
        raise DataError(f'has images without a class map (*{map_suffix}) in {maps}: {few(missing)}')


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _stems(folder: str, suffix: str) -> set[str]:
    """Files below a folder, as paths from there, without the suffix that they end in."""
    found = (os.path.relpath(os.path.join(head, name), folder) for head, _, tails in os.walk(folder) for name in tails)
    return {path[: -len(suffix)] for path in found if path.endswith(suffix)}


def _names_of_large_file(path: str) -> list[str]:
    """The file names in a large file of annotations, without parsing it; about a second for COCO's."""
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not data[-64:].rstrip().endswith(b'}'):
            raise DataError('is no JSON, or is cut short: it does not end in }')
        found = [match[1] for match in re.finditer(rb'"file_name":\s*("(?:[^"\\]|\\.)*")', data)]
    return [json.loads(name) for name in found]


def _check_parts(coco: Any, training: bool) -> list[str]:
    """Check the outline; return the file names of the images."""
    if not isinstance(coco, Mapping):
        raise DataError(f'must hold images, annotations and categories, but holds a {type(coco).__name__}')
    for part in ('images', 'categories', *(['annotations'] if training else [])):
        if not isinstance(coco.get(part), list) or not coco[part]:
            raise DataError(f'has no {part}')
    for image in coco['images']:
        if not isinstance(image, Mapping) or not {'id', 'file_name', 'width', 'height'} <= set(image):
            raise DataError(f'has an image without id, file_name, width or height: {few([str(image)])}')
        if not all(isinstance(image[side], Real) and image[side] > 0 for side in ('width', 'height')):
            raise DataError(f'has an image of size {image["width"]} x {image["height"]}: {image["file_name"]}')
    _check_unique('images', [image['id'] for image in coco['images']])
    return [image['file_name'] for image in coco['images']]


def _check_unique(part: str, ids: list) -> None:
    if len(set(ids)) < len(ids):
        seen: set = set()
        double = [str(i) for i in ids if i in seen or seen.add(i)]
        raise DataError(f'has several {part} of the same id: {few(double)}')


def _check_classes(categories: list, classes: Sequence[str] | None) -> None:
    """Check that the classes are among the categories in their order, by which MMDetection numbers them."""
    if not all(isinstance(category, Mapping) and {'id', 'name'} <= set(category) for category in categories):
        raise DataError('has a category without id or name')
    _check_unique('categories', [category['id'] for category in categories])
    if classes is None:
        return
    names = [category['name'] for category in categories]
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(f'has no category {few(missing)}, which the classes of the data set name; it has {few(names)}')
    ordered = [name for name in names if name in set(classes)]
    if ordered != list(classes):
        raise DataError(f'has its categories in another order than the classes of the data set: {few(ordered)}')


def _check_instances(coco: Mapping, classes: Sequence[str] | None, with_masks: bool, training: bool) -> list[str]:
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    names = {category['id']: category['name'] for category in coco['categories']}
    taken = {i for i, name in names.items() if classes is None or name in set(classes)}
    annotations = coco.get('annotations') or []
    good = outside = 0
    for ann in annotations:
        _check_instance(ann, sizes, names, with_masks)
        if ann['category_id'] in taken:
            if _has_area(ann, sizes[ann['image_id']]):
                good += 1
            else:
                outside += 1
    _check_unique('annotations', [ann['id'] for ann in annotations])
    if training and not good:
        raise DataError('has no box of the classes that lies in an image and has an area')
    if outside:
        return [f'{outside} of {good + outside} boxes have no area or lie outside of their image: training skips them']
    return []


def _check_instance(ann: Any, sizes: Mapping, names: Mapping, with_masks: bool) -> None:
    if not isinstance(ann, Mapping) or 'id' not in ann:
        raise DataError(f'has an annotation without id: {few([str(ann)])}')
    fail = _failing(ann)
    missing = [key for key in ('image_id', 'category_id', 'bbox', 'area', 'iscrowd') if key not in ann]
    if missing:
        fail(f'has no {few(missing)}')
    if ann['image_id'] not in sizes:
        fail(f'is of image {ann["image_id"]}, which is not listed')
    if ann['category_id'] not in names:
        fail(f'is of category {ann["category_id"]}, which is not listed')
    if not _are_numbers(ann['bbox']) or len(ann['bbox']) != 4:
        fail(f'has bbox {ann["bbox"]}, which must be x, y, width, height')
    if with_masks:
        problem = _mask_problem(ann.get('segmentation'))
        if problem:
            fail(f'has {problem}')


def _failing(ann: Mapping) -> Callable[[str], None]:
    def fail(problem: str) -> None:
        raise DataError(f'has a broken annotation: the one of id {ann["id"]} {problem}')

    return fail


def _mask_problem(mask: Any) -> str | None:
    if isinstance(mask, Mapping):
        return None if {'counts', 'size'} <= set(mask) else 'a mask of neither polygons nor counts and size'
    if not isinstance(mask, list) or not mask:
        return 'no mask'
    for polygon in mask:
        if not _are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            return f'a polygon that is not three or more pairs of numbers: {few([str(polygon)])[:80]}'
    return None


def _are_numbers(values: Any) -> bool:
    try:
        return isinstance(values, list) and math.isfinite(sum(values))  # at C speed: what is not finite stays in a sum
    except TypeError:
        return False


def _has_area(ann: Mapping, size: tuple[float, float]) -> bool:
    """As MMDetection's ``CocoDataset`` asks before it takes a box."""
    x, y, width, height = ann['bbox']
    inside = min(x + width, size[0]) > max(x, 0) and min(y + height, size[1]) > max(y, 0)
    return inside and width >= 1 and height >= 1 and ann['area'] > 0
