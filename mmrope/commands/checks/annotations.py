"""Checks of COCO annotations and of the files of a data set: what MMDetection is silent about, or fails on late."""

import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from ...text import few
from .images import read_sizes, remedy, spread
from .instances import Instances, look_at_instances

# Of larger files only images and categories are parsed: COCO's own 450 MB would take 10 s and 3 GB.
LARGEST_PARSED = 32 * 2**20
# Of more files than this only the names are looked up.
MOST_SIZED = 20_000
# More categories than this are not written out for a config.
MOST_WRITTEN = 20


class DataError(ValueError):
    """A fault of a data set. The message is a predicate: callers put the name of the file before it."""


class Reading(NamedTuple):
    """The rules by which a data set reads a file of COCO annotations and the images it names.

    Attributes:
        classes: names that the data set takes, in order; ``None`` if it does not say.
        images: folder of the images; ``None`` if it is not on this machine.
        masks: which masks are read: ``'none'``, ``'polygons'`` (others are ignored) or ``'all'``.
        training: whether a training reads the file, which needs boxes.
        filter_cfg: rules by which the data set leaves images out; ``None`` if it leaves none out.
        read: decodes an image as the pipeline does, and returns its width and height; ``None`` if sizes do not matter.
    """

    classes: Sequence[str] | None
    images: str | None = None
    masks: str = 'none'
    training: bool = True
    filter_cfg: Mapping[str, Any] | None = None
    read: Callable[[str], tuple[int, int]] | None = None


class Findings(NamedTuple):
    """Notes about a file, and why a training has nothing to learn from it, or ``None`` if it has."""

    notes: list[str]
    nothing: str | None


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
        raise DataError('may not be read: permission denied; look at its rights and those of its folders') from None
    except OSError as error:
        raise DataError(f'cannot be read: {error.strerror}') from None
    if not filled:
        raise DataError('is empty')


def check_images_exist(paths: Sequence[str]) -> None:
    """Check that the images that a file names exist.

    Raises:
        DataError: if some are missing or empty.
    """
    missing, empty = absent_files(paths)
    if missing:
        raise DataError(f'names images that do not exist: {few(missing)}')
    if empty:
        raise DataError(f'names images that are empty files: {few(empty)}')


def absent_files(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which of some files are missing and which are empty.

    Up to ``MOST_SIZED`` files are looked at one by one. Of more only their folders are listed, which does not tell
    empty files.
    """
    if len(paths) <= MOST_SIZED:
        sizes = {path: os.path.getsize(path) if os.path.exists(path) else None for path in paths}
        return [path for path, size in sizes.items() if size is None], [path for path in sizes if sizes[path] == 0]
    folders = {os.path.dirname(path) for path in paths}
    there = {(head, tail) for head in folders if os.path.isdir(head) for tail in os.listdir(head)}
    return [path for path in paths if os.path.split(path) not in there], []


def check_coco(path: str, reading: Reading) -> Findings:
    """Check a file of COCO annotations and the images it names.

    Of a file of more than ``LARGEST_PARSED`` bytes only images and categories are parsed.

    Args:
        path: the file.
        reading: how the data set reads it.

    Raises:
        DataError: for the first thing that is wrong.
    """
    coco = _parse(path)
    images, annotations = coco['images'], coco.get('annotations')
    _check_images(images)
    _check_categories(coco['categories'], reading.classes)
    _check_entries('annotations', annotations or [], ['id'])
    taken = {cat['id'] for cat in coco['categories'] if reading.classes is None or cat['name'] in set(reading.classes)}
    kept = _filter(images, annotations, taken, reading.filter_cfg or {})
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    known = {category['id'] for category in coco['categories']}
    found = look_at_instances(annotations or [], sizes, known, taken, kept, reading.masks, reading.training)
    if faults := found.describe_faults():
        raise DataError(faults)
    notes = found.notes() if reading.training else []
    if reading.images is not None:
        check_images_exist([os.path.join(reading.images, image['file_name']) for image in images])
    notes += _check_sizes(images, annotations or [], found, reading)
    if annotations is None:
        return Findings(notes, coco['nothing'])
    return Findings(notes, found.nothing() if annotations else 'has no annotations')


def check_categories(path: str, classes: Sequence[str] | None) -> None:
    """Check the categories of a file alone, as for a metric that reads the file too.

    Raises:
        DataError: if they are not the classes in their order.
    """
    _check_categories(_parse(path)['categories'], classes)


def _parse(path: str) -> Mapping[str, Any]:
    """Return images, categories and annotations; of a large file ``nothing`` in place of the annotations."""
    if os.path.getsize(path) > LARGEST_PARSED:
        return _parse_large(path)
    with open(path, 'rb') as file:
        try:
            coco = json.load(file)
        except ValueError as error:
            raise DataError(f'is no JSON, or is cut short: {error}') from None
    if not isinstance(coco, Mapping):
        raise DataError(f'must hold images, annotations and categories, but holds a {type(coco).__name__}')
    for part in ('images', 'categories'):
        if not isinstance(coco.get(part), list) or not coco[part]:
            raise DataError(f'has no {part}')
    annotations = coco.get('annotations') or []
    if not isinstance(annotations, list):
        raise DataError(f'must hold a list of annotations, but holds a {type(annotations).__name__}')
    return {**coco, 'annotations': annotations}


def _parse_large(path: str) -> Mapping[str, Any]:
    """Parse images and categories of a large file, and look whether all of its boxes are crowds."""
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not data[-64:].rstrip().endswith(b'}'):
            raise DataError('is no JSON, or is cut short: it does not end in }')
        parts = {part: _list_in(data, part) for part in ('images', 'categories')}
        crowds = re.search(rb'"iscrowd":\s*1', data) and not re.search(rb'"iscrowd":\s*0', data)
    nothing = 'has nothing to learn from: all boxes are marked iscrowd=1, which training ignores' if crowds else None
    return {**parts, 'nothing': nothing}


def _list_in(data: mmap.mmap, part: str) -> list:
    """Parse one of the lists of objects at the top of a large file."""
    start = re.search(rb'"%s"\s*:\s*\[\s*\{' % part.encode(), data)
    end = start and re.compile(rb'\}\s*\](?=\s*[,}])').search(data, start.end())
    if not start or not end:
        raise DataError(f'has no {part}')
    try:
        return json.loads(b'[{' + data[start.end() : end.end()])
    except ValueError as error:
        raise DataError(f'has {part} that are no JSON: {error}') from None


def _check_entries(part: str, entries: list, keys: Sequence[str]) -> None:
    """Check that entries have their keys, and ids of their own: COCO's API takes the last of several, in silence."""
    broken = [entry for entry in entries if not isinstance(entry, Mapping) or not {*keys} <= entry.keys()]
    if broken:
        missing = few([key for key in keys if not isinstance(broken[0], Mapping) or key not in broken[0]], len(keys))
        raise DataError(f'has {part} without {missing}: {few(str(entry)[:80] for entry in broken)}')
    double = [str(i) for i, count in Counter(entry['id'] for entry in entries).items() if count > 1]
    if double:
        raise DataError(f'has several {part} of the same id: {few(double)}')


def _check_images(images: list) -> None:
    _check_entries('images', images, ['id', 'file_name', 'width', 'height'])
    sized = [all(isinstance(image[side], Real) and image[side] > 0 for side in ('width', 'height')) for image in images]
    broken = [f'{i["width"]} x {i["height"]}: {i["file_name"]}' for i, right in zip(images, sized) if not right]
    if broken:
        raise DataError(f'has images of size {few(broken)}')


def _check_categories(categories: list, classes: Sequence[str] | None) -> None:
    """Check that the classes are among the categories in their order, by which MMDetection numbers them."""
    _check_entries('categories', categories, ['id', 'name'])
    if classes is None:
        return
    names = [category['name'] for category in categories]
    missing = [name for name in classes if name not in names]
    if missing:
        listed = f'metainfo=dict(classes={tuple(names)})' if len(names) <= MOST_WRITTEN else 'its categories as classes'
        raise DataError(
            f'has no category {few(missing)}, which the classes of the data set name; it has {few(names)}: '
            f'write {listed} into each data set, or name the categories as the classes'
        )
    ordered = [name for name in names if name in set(classes)]
    double = [name for name, count in Counter(ordered).items() if count > 1]
    if double:
        ids = few([str(category['id']) for category in categories if category['name'] == double[0]])
        raise DataError(
            f'has several categories that are named {double[0]}: ids {ids}; each class needs one of its own'
        )
    if len(set(classes)) < len(classes):
        raise DataError(f'is read with classes that repeat a name: {few(classes)}')
    if ordered != list(classes):
        # To rename the classes would be right for a new training alone: a trained model, and another file in the old
        # order, would then be read with the wrong names.
        first = next(i for i, pair in enumerate(zip(ordered, classes)) if pair[0] != pair[1])
        raise DataError(
            f'has its categories in another order than the classes of the data set ({few(classes[first:])}), and '
            f'labels follow the file, from {first} on: {few(ordered[first:])}; sort the list "categories" in the file '
            'as the classes, each with the id it has'
        )


def _filter(images: list, annotations: list | None, taken: set, rules: Mapping[str, Any]) -> set:
    """Return the ids of the images that ``CocoDataset.filter_data`` keeps.

    Args:
        images: of the file.
        annotations: of the file; ``None`` if they are not known.
        taken: ids of the categories that the data set takes.
        rules: ``filter_cfg`` of the data set.

    Raises:
        DataError: if it keeps none.
    """
    least, empty = rules.get('min_size', 0), set()
    if rules.get('filter_empty_gt') and annotations is not None:
        annotated = {ann.get('image_id') for ann in annotations if ann.get('category_id') in taken}
        empty = {image['id'] for image in images} - annotated
    small = {image['id'] for image in images if min(image['width'], image['height']) < least}
    kept = {image['id'] for image in images} - small - empty
    if not kept:
        reasons = [f'{len(small)} are smaller than min_size={least} on a side'] if small else []
        reasons += [f'{len(empty)} have no annotation of the classes (filter_empty_gt=True)'] if empty else []
        raise DataError(f'has {len(images)} images, of which filter_cfg leaves none: {" and ".join(reasons)}')
    return kept


def _check_sizes(images: list, annotations: list, found: Instances, reading: Reading) -> list[str]:
    """Compare the sizes of images and masks in a file with those of the images as they are read: of all, or a sample.

    Raises:
        DataError: if masks do not fit, or boxes reach out of an image and so must belong to one of another size.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    actual, wrong, notes = sizes, {}, []
    if reading.images is not None and reading.read is not None:
        odd = {image for image, _, size in found.run_lengths if size != sizes[image]}
        chosen = spread(images) + spread([image for image in images if image['id'] in odd])
        by_path = {os.path.join(reading.images, image['file_name']): image['id'] for image in chosen}
        read = read_sizes({path: sizes[i] for path, i in by_path.items()}, reading.read)
        wrong = {by_path[path]: path for path, size in read.items() if size[:2] != sizes[by_path[path]]}
        actual = sizes | {by_path[path]: size[:2] for path, size in read.items()}
    masks = {i: (image, size) for image, i, size in found.run_lengths if size != actual[image]}
    if wrong:
        beyond = [image for image, _ in masks.values() if image in wrong]
        beyond += [ann['image_id'] for ann in annotations if ann['image_id'] in wrong and _reaches_out(ann, actual)]
        image = next(iter(beyond or wrong))
        path, (width, height) = wrong[image], sizes[image]
        text = (
            f'has images of another size than their files, {len(wrong)} of {len(read)} looked at, as {path}: '
            f'{width} x {height} in the annotations and {read[path]} as it is read{remedy(read[path], (width, height))}'
        )
        if beyond:
            raise DataError(text)
        notes = [text]
    if masks:
        width, height = next(iter(masks.values()))[1]
        raise DataError(
            f'has {len(masks)} masks of another size than their image: ids {few(map(str, masks))}, '
            f'the first of {width} x {height}'
        )
    return notes


def _reaches_out(ann: Mapping[str, Any], sizes: Mapping[Any, tuple[int, int]]) -> bool:
    """Say whether a box reaches out of its image."""
    (x, y, width, height), (right, bottom) = ann['bbox'], sizes[ann['image_id']]
    return not ann.get('ignore') and (x + width > right + 1 or y + height > bottom + 1)
