"""Checks of a data set's files and of COCO annotations, before a training takes hours to stumble over a fault."""

import json
import mmap
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from ...text import few
from .images import Size, read_sizes, remedy, spread
from .instances import Instances, look_at_instances

# Larger annotation files are not parsed a second time: COCO's own 450 MB would take 10 s and 3 GB a process.
LARGEST_PARSED = 32 * 2**20
# With more images than this their sizes are not asked for one by one.
MOST_SIZED = 20_000
# More categories than this are not written out for a config.
MOST_WRITTEN = 20


class DataError(ValueError):
    """A fault of a data set. The message is a predicate: callers put the name of the file before it."""


class Reading(NamedTuple):
    """How a data set reads a file of COCO annotations and the images it names.

    Attributes:
        classes: The names that the data set takes, in order; ``None`` if it does not say.
        images: Folder of the images; ``None`` if they are not on this machine.
        masks: Which masks are read: ``'none'``, ``'polygons'`` (others are ignored) or ``'all'``.
        training: Whether boxes are needed.
        filter_cfg: By which the data set leaves images out; ``None`` if it leaves none out.
        read: Decodes an image as the pipeline does, and returns its width and height; ``None`` if sizes do not matter.
    """

    classes: Sequence[str] | None
    images: str | None = None
    masks: str = 'none'
    training: bool = True
    filter_cfg: Mapping[str, Any] | None = None
    read: Callable[[str], tuple[int, int]] | None = None


class Findings(NamedTuple):
    """A sentence for each thing that is passed over, and why there is nothing to learn from a file, if that is so."""

    notes: list[str]
    nothing: str | None


def check_readable(path: str) -> None:
    """Check that a file or folder can be read and holds something.

    Raises:
        FileNotFoundError: If it is not there.
        DataError: If it is empty or may not be read.
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


def check_files(folder: str, names: Iterable[str]) -> None:
    """Check that files are in a folder.

    Raises:
        DataError: If some are missing or empty.
    """
    missing, empty = absent_files([os.path.join(folder, name) for name in names])
    for found, what in ((missing, 'do not exist'), (empty, 'are empty files')):
        if found:
            raise DataError(f'names images that {what}: {few(found)}')


def absent_files(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which of some files are missing and which are empty.

    Up to ``MOST_SIZED`` files are looked at one by one. Of more, only the listings of their folders are read, which do
    not tell empty files.
    """
    if len(paths) <= MOST_SIZED:
        sizes = {path: _size(path) for path in paths}
        return [path for path, size in sizes.items() if size is None], [path for path in sizes if sizes[path] == 0]
    folders = {os.path.dirname(path) for path in paths}
    there = {(head, tail) for head in folders if os.path.isdir(head) for tail in os.listdir(head)}
    return [path for path in paths if os.path.split(path) not in there], []


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def check_coco(path: str, reading: Reading) -> Findings:
    """Check a file of COCO annotations and the images it names.

    Of a file of more than ``LARGEST_PARSED`` bytes only images and categories are parsed.

    Args:
        path: The path of the file.
        reading: How the data set reads it.

    Returns:
        What is passed over, and whether there is nothing to learn: beside other data sets the file may still serve.

    Raises:
        DataError: For the first thing that is wrong.
    """
    large = os.path.getsize(path) > LARGEST_PARSED
    coco = _parse_large(path) if large else _parse(path)
    _check_images(coco['images'])
    _check_categories(coco['categories'], reading.classes)
    taken = {cat['id'] for cat in coco['categories'] if reading.classes is None or cat['name'] in set(reading.classes)}
    annotations = coco.get('annotations') or []
    kept = _filter(coco['images'], None if large else annotations, taken, reading.filter_cfg or {})
    instances = _check_instances(coco, taken, kept, reading)
    notes = instances.use.notes() if reading.training else []
    if reading.images is not None:
        check_files(reading.images, [image['file_name'] for image in coco['images']])
        notes += _check_sizes(coco['images'], annotations, instances, reading)
    else:
        _check_masks(instances, {})
    if large:
        return Findings(notes, coco['nothing'])
    return Findings(notes, instances.use.nothing() if annotations else 'has no annotations')


def check_categories(path: str, classes: Sequence[str] | None) -> None:
    """Check the categories of a file alone, as for a metric that reads the file too.

    Raises:
        DataError: If they are not the classes in their order.
    """
    coco = _parse_large(path) if os.path.getsize(path) > LARGEST_PARSED else _parse(path)
    _check_categories(coco['categories'], classes)


def _parse(path: str) -> Mapping[str, Any]:
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
    if not isinstance(coco.get('annotations') or [], list):
        raise DataError(f'must hold a list of annotations, but holds a {type(coco["annotations"]).__name__}')
    return coco


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
    if not end:
        raise DataError(f'has no {part}')
    try:
        return json.loads(b'[{' + data[start.end() : end.end()])
    except ValueError as error:
        raise DataError(f'has {part} that are no JSON: {error}') from None


def _check_images(images: list) -> None:
    keys = {'id', 'file_name', 'width', 'height'}
    broken = [str(image) for image in images if not isinstance(image, Mapping) or not keys <= set(image)]
    if broken:
        raise DataError(f'has {_counted(broken, "image")} without id, file_name, width or height: {few(broken)}')
    for image in images:
        if not all(isinstance(image[side], Real) and image[side] > 0 for side in ('width', 'height')):
            broken.append(f'{image["width"]} x {image["height"]}: {image["file_name"]}')
    if broken:
        raise DataError(f'has {_counted(broken, "image")} of size {few(broken)}')
    _check_unique('images', images)


def _check_unique(part: str, entries: list) -> None:
    ids = [entry['id'] for entry in entries]
    if len(set(ids)) < len(ids):
        seen: set = set()
        double = dict.fromkeys(str(i) for i in ids if i in seen or seen.add(i))
        raise DataError(f'has several {part} of the same id: {few(double)}')


def _counted(entries: list, noun: str) -> str:
    if len(entries) > 1:
        return f'{len(entries)} {noun}s'
    return f'an {noun}' if noun[0] in 'ai' else f'a {noun}'


def _check_categories(categories: list, classes: Sequence[str] | None) -> None:
    """Check that the classes are among the categories in their order, by which MMDetection numbers them."""
    keys = {'id', 'name'}
    broken = [
        str(category) for category in categories if not isinstance(category, Mapping) or not keys <= set(category)
    ]
    if broken:
        raise DataError(f'has a category without id or name: {few(broken)}')
    _check_unique('categories', categories)
    if classes is None:
        return
    names = [category['name'] for category in categories]
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(
            f'has no category {few(missing)}, which the classes of the data set name; it has {few(names)}: '
            f'write {_metainfo(names)} into each data set, or name the categories as the classes'
        )
    ordered = [name for name in names if name in set(classes)]
    for name in dict.fromkeys(ordered):
        if ordered.count(name) > 1:
            ids = few([str(category['id']) for category in categories if category['name'] == name])
            raise DataError(f'has several categories that are named {name}: ids {ids}; each class needs one of its own')
    if ordered != list(classes):
        _refuse_order(ordered, list(classes))


def _metainfo(names: list) -> str:
    return f'metainfo=dict(classes={tuple(names)})' if len(names) <= MOST_WRITTEN else 'its categories as classes'


def _refuse_order(ordered: list, classes: list) -> None:
    """Say how to mend another order.

    The labels follow the file. To rename the classes would be right for a new training alone: a trained model, and
    another file in the old order, would then be read with the wrong names.
    """
    if len(set(classes)) < len(classes):
        raise DataError(f'is read with classes that repeat a name: {few(classes)}')
    first = next(i for i, pair in enumerate(zip(ordered, classes)) if pair[0] != pair[1])
    raise DataError(
        f'has its categories in another order than the classes of the data set ({few(classes[first:])}), and labels '
        f'follow the file, from {first} on: {few(ordered[first:])}; sort the list "categories" in the file as the '
        'classes, each with the id it has'
    )


def _filter(images: list, annotations: list | None, taken: set, rules: Mapping[str, Any]) -> set:
    """Return the ids of the images that ``CocoDataset.filter_data`` keeps; annotations are not known of a large file.

    Raises:
        DataError: If it keeps none.
    """
    least, annotated = rules.get('min_size', 0), {image['id'] for image in images}
    if rules.get('filter_empty_gt') and annotations is not None:
        annotated = {
            ann.get('image_id') for ann in annotations if isinstance(ann, Mapping) and ann.get('category_id') in taken
        }
    small = {image['id'] for image in images if min(image['width'], image['height']) < least}
    kept = {image['id'] for image in images if image['id'] in annotated} - small
    if kept:
        return kept
    empty = sum(image['id'] not in annotated for image in images)
    reasons = [f'{len(small)} are smaller than min_size={least} on a side'] if small else []
    reasons += [f'{empty} have no annotation of the classes (filter_empty_gt=True)'] if empty else []
    raise DataError(f'has {len(images)} images, of which filter_cfg leaves none: {" and ".join(reasons)}')


def _check_instances(coco: Mapping, taken: set, kept: set, reading: Reading) -> Instances:
    annotations = coco.get('annotations') or []
    without = [str(ann) for ann in annotations if not isinstance(ann, Mapping) or 'id' not in ann]
    if without:
        raise DataError(f'has {_counted(without, "annotation")} without id: {few(without)[:200]}')
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    categories = {category['id'] for category in coco['categories']}
    instances = look_at_instances(annotations, sizes, categories, taken, kept, reading.masks, reading.training)
    if faults := instances.describe_faults():
        raise DataError(faults)
    _check_unique('annotations', annotations)
    return instances


def _check_sizes(images: list, annotations: list, instances: Instances, reading: Reading) -> list[str]:
    """Compare the sizes in a file with those of the images as they are read: of all, or of a sample.

    Raises:
        DataError: If masks do not fit, or boxes reach out of an image and so must belong to one of another size.
    """
    if reading.read is None:
        _check_masks(instances, {})
        return []
    by_path = {os.path.join(reading.images, image['file_name']): image for image in spread(images)}
    odd = spread([image for image in images if image['id'] in instances.odd_masks])
    by_path |= {os.path.join(reading.images, image['file_name']): image for image in odd}
    expected = {path: (image['width'], image['height']) for path, image in by_path.items()}
    sizes = read_sizes(expected, reading.read)
    _check_masks(instances, {by_path[path]['id']: size for path, size in sizes.items()})
    wrong = {path: size for path, size in sizes.items() if size[:2] != expected[path]}
    if not wrong:
        return []
    beyond = _reaching_out({by_path[path]['id']: size for path, size in wrong.items()}, annotations, reading.masks)
    path = next((path for path in wrong if by_path[path]['id'] in beyond), next(iter(wrong)))
    width, height = expected[path]
    text = (
        f'has images of another size than their files, {len(wrong)} of {len(sizes)} looked at, as {path}: '
        f'{width} x {height} in the annotations and {wrong[path]} as it is read{remedy(wrong[path], (width, height))}'
    )
    if beyond:
        raise DataError(text)
    return [text]


def _reaching_out(sizes: Mapping[Any, Size], annotations: list, masks: str) -> set:
    """Return which images have a box that reaches out of them, or a mask of another size."""
    found = set()
    for ann in annotations:
        size = sizes.get(ann['image_id'])
        if size is None or ann.get('ignore'):
            continue
        x, y, width, height = ann['bbox']
        mask = ann.get('segmentation') if masks == 'all' else None
        if isinstance(mask, Mapping) and tuple(mask['size'][::-1]) != size[:2]:
            found.add(ann['image_id'])
        elif x + width > size.width + 1 or y + height > size.height + 1:
            found.add(ann['image_id'])
    return found


def _check_masks(instances: Instances, sizes: Mapping[Any, Size]) -> None:
    """Check that masks that are no polygons have the size of their image, as it is read or else as the file says."""
    wrong = [
        (i, size)
        for image, masks in instances.odd_masks.items()
        for i, size in masks
        if image not in sizes or size != sizes[image][:2]
    ]
    if wrong:
        (width, height), ids = wrong[0][1], few([str(i) for i, _ in wrong])
        raise DataError(
            f'has {len(wrong)} masks of another size than their image: ids {ids}, the first of {width} x {height}'
        )
