"""Checks of COCO annotations: what MMDetection passes over in silence, or fails on late or without a name."""

import json
import math
import mmap
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ...text import few
from .files import DataError, check_exist
from .images import ImageReader, describe_unlike, spread, unlike

# Of larger files only images and categories are parsed: COCO's own 450 MB would take 10 s and 3 GB.
LARGEST_PARSED = 32 * 2**20
# Share of crowds that is worth a warning: COCO has 1 %.
MANY_CROWDS = 0.2
CROWDS_ONLY = 'has nothing to learn from: all boxes are marked iscrowd=1, which training ignores'


class Reading(NamedTuple):
    """The way a data set reads a file of COCO annotations and its images.

    Attributes:
        classes: names of the classes, in order; ``None`` if the data set does not say.
        images: folder of the images; ``None`` if it is not on this machine.
        masks: which masks are read: ``'none'``, ``'polygons'`` (others are ignored) or ``'all'``.
        training: whether a training reads the file, rather than a metric.
        filter_cfg: rules by which the data set leaves out images.
        read: the pipeline's reader of images; ``None`` if sizes do not matter.
    """

    classes: Sequence[str] | None
    images: str | None = None
    masks: str = 'none'
    training: bool = True
    filter_cfg: Mapping[str, Any] | None = None
    read: ImageReader | None = None


class Findings(NamedTuple):
    """Notes about a file, and why a training cannot learn from it; ``None`` if it can."""

    notes: list[str]
    nothing: str | None


def check_coco(path: str, reading: Reading) -> Findings:
    """Check a file of COCO annotations and the images that it lists.

    Args:
        path: the file. Of one of more than ``LARGEST_PARSED`` bytes, annotations are not parsed.
        reading: how the data set reads it.

    Raises:
        DataError: for the first fault.
    """
    coco = _parse(path)
    images, categories = _by_id('images', coco['images']), _by_id('categories', coco['categories'])
    _check_order(coco['categories'], reading.classes)
    used, uses = _sort(coco, images, categories, reading)
    if reading.images is not None:
        check_exist([os.path.join(reading.images, image['file_name']) for image in images.values()])
    notes = _check_sizes(images, used, reading)
    if 'annotations' not in coco:
        return Findings(notes, CROWDS_ONLY if coco['only_crowds'] else None)
    return Findings([*notes, *(_notes(uses) if reading.training else ())], _nothing(uses))


def check_categories(path: str, classes: Sequence[str] | None) -> None:
    """Check the categories alone, of a file that a metric reads.

    Raises:
        DataError: if they do not have the order of the classes.
    """
    _check_order(_parse(path)['categories'], classes)


def _parse(path: str) -> dict[str, Any]:
    """Parse a file; for the annotations of a large one there is ``only_crowds``, whether all boxes are crowds."""
    with open(path, 'rb') as file:
        if os.path.getsize(path) > LARGEST_PARSED:
            # Fails where an image or a category holds a list of objects; then the file is parsed as a small one.
            with suppress(json.JSONDecodeError), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse_large(data)
        coco = {'annotations': [], **json.load(file)}
    for part in ('images', 'categories', 'annotations'):
        if not isinstance(coco.get(part), list) or not (coco[part] or part == 'annotations'):
            raise DataError(f'has no {part}')
    return coco


def _parse_large(data: mmap.mmap) -> dict[str, Any]:
    if not data[-64:].rstrip().endswith(b'}'):
        raise DataError('is cut short: it does not end in }')
    coco: dict[str, Any] = {}
    for part in ('images', 'categories'):
        start = re.search(rb'"%s"\s*:\s*\[\s*\{' % part.encode(), data)
        end = start and re.compile(rb'\}\s*\](?=\s*[,}])').search(data, start.end())
        if not start or not end:
            raise DataError(f'has no {part}')
        coco[part] = json.loads(b'[{' + data[start.end() : end.end()])
    coco['only_crowds'] = bool(re.search(rb'"iscrowd":\s*1', data) and not re.search(rb'"iscrowd":\s*0', data))
    return coco


def _by_id(part: str, entries: list[dict]) -> dict[Any, dict]:
    """Return entries by id; of several with one id, COCO's API would take the last without a word."""
    double = [str(i) for i, count in Counter(entry['id'] for entry in entries).items() if count > 1]
    if double:
        raise DataError(f'has several {part} with the same id: {few(double)}')
    return {entry['id']: entry for entry in entries}


def _check_order(categories: list[dict], classes: Sequence[str] | None) -> None:
    """Check that categories have the order of the classes: MMDetection numbers labels by the categories."""
    if classes is None:
        return
    names = [category['name'] for category in categories]
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(
            f'has no category {few(missing)}, which the classes of the data set name; set its own categories in each '
            f'data set, as metainfo=dict(classes=({few(map(repr, names), 20)})), or rename them'
        )
    ordered = [name for name in names if name in set(classes)]
    double = [name for name, count in Counter(ordered).items() if count > 1]
    if double:
        ids = few([str(category['id']) for category in categories if category['name'] == double[0]])
        raise DataError(f'has several categories named {double[0]}: ids {ids}; give each class one category')
    if len(set(classes)) < len(classes):
        raise DataError(f'is read with classes that repeat a name: {few(classes)}')
    if ordered != list(classes):
        # Reordering the classes instead would only suit a new training: a trained model, and other files in the old
        # order, would then be read with the wrong names.
        first = next(i for i, pair in enumerate(zip(ordered, classes)) if pair[0] != pair[1])
        raise DataError(
            'lists its categories in another order than the classes of the data set, and labels follow the file: '
            f'from {first} on, the file has {few(ordered[first:])} and the classes are {few(classes[first:])}; sort '
            'the list "categories" in the file like the classes, and keep the ids'
        )


def _filter(images: Mapping[Any, dict], coco: Mapping[str, Any], taken: set, rules: Mapping[str, Any]) -> set:
    """Return the ids of the images that ``CocoDataset.filter_data`` keeps.

    Raises:
        DataError: if it keeps none.
    """
    kept = {i for i, image in images.items() if min(image['width'], image['height']) >= rules.get('min_size', 0)}
    if rules.get('filter_empty_gt') and 'annotations' in coco:
        kept &= {ann.get('image_id') for ann in coco['annotations'] if ann.get('category_id') in taken}
    if not kept:
        raise DataError(f'has {len(images)} images, of which filter_cfg={dict(rules)} leaves none')
    return kept


def _sort(
    coco: Mapping[str, Any], images: Mapping[Any, dict], categories: Mapping[Any, dict], reading: Reading
) -> tuple[list[dict], Counter[str]]:
    """Sort annotations by what a training does with them.

    Returns:
        The annotations with a box that the data set takes, and how many boxes of the kept images are ``'good'``,
        ``'outside'`` (without an area in their image), ``'crowds'`` and ``'unread'`` (of masks that are no polygons).

    Raises:
        DataError: if some are broken, with the number and a few ids for each fault.
    """
    taken = {i for i, cat in categories.items() if reading.classes is None or cat['name'] in reading.classes}
    kept = _filter(images, coco, taken, reading.filter_cfg or {})
    used, uses, faults = [], Counter[str](), defaultdict(list)
    for ann in coco.get('annotations', ()):
        try:
            image, mask = images.get(ann['image_id']), ann.get('segmentation')
            if image is None or ann['category_id'] not in categories:
                raise ValueError('an image_id or category_id that the file does not list')
            if not reading.training:
                ann['iscrowd']  # only a metric needs it
            if ann['category_id'] not in taken or ann.get('ignore'):
                continue
            use = 'crowds' if ann.get('iscrowd') else 'good'
            if not _is_inside(ann, image):
                use = 'outside'
            elif reading.masks != 'none':
                _check_mask(mask)
                use = 'unread' if use == 'good' and reading.masks == 'polygons' and isinstance(mask, dict) else use
        except (KeyError, TypeError, ValueError) as error:
            faults[f'no {error.args[0]}' if isinstance(error, KeyError) else str(error)].append(ann)
            continue
        used += [ann] if use != 'outside' else []
        uses[use] += ann['image_id'] in kept
    if faults:
        kinds = [
            f'{len(anns)} with {fault} (id {few(str(ann.get("id")) for ann in anns)}; the first is '
            f'{str({key: anns[0][key] for key in anns[0] if key in fault} or anns[0])[:80]})'
            for fault, anns in faults.items()
        ]
        raise DataError(f'has {sum(map(len, faults.values()))} broken annotations: {"; ".join(kinds)}')
    return used, uses


def _is_inside(ann: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Say whether ``CocoDataset`` takes a box, which it does not without an area in its image."""
    x, y, width, height = ann['bbox']
    if not math.isfinite(x + y + width + height):
        raise ValueError('a bbox that is not finite')
    inside = min(x + width, image['width']) > max(x, 0) and min(y + height, image['height']) > max(y, 0)
    return inside and width >= 1 and height >= 1 and ann['area'] > 0


def _check_mask(mask: Any) -> None:
    """Check that a mask is one or more polygons, or has the run lengths of its size.

    Raises:
        KeyError, TypeError, ValueError: if not; ``LoadAnnotations`` ignores some of these without a word.
    """
    if isinstance(mask, dict):
        height, width = mask['size']
        if isinstance(mask['counts'], list) and sum(mask['counts']) != height * width:
            raise ValueError('a segmentation whose counts do not add up to its size')
    elif not mask or any(len(part) < 6 or len(part) % 2 or not math.isfinite(sum(part)) for part in mask):
        raise ValueError('a segmentation that is neither counts nor polygons of three or more pairs')


def _nothing(uses: Counter[str]) -> str | None:
    """Say why a training has nothing to learn; ``None`` if it has."""
    if uses['good']:
        return None
    if not uses.total():
        return 'has no annotations of the classes'
    if uses['unread']:
        return (
            f'has nothing to learn from: {uses["unread"]} masks are no polygons, which poly2mask=False in '
            'LoadAnnotations ignores; leave it out'
        )
    return 'has no box of the classes that lies in an image and has an area' if uses['outside'] else CROWDS_ONLY


def _notes(uses: Counter[str]) -> list[str]:
    """List how many boxes a training ignores, where that may be a mistake."""
    texts = {
        'outside': 'boxes have no area or lie outside their image: training skips them',
        'crowds': 'boxes are marked iscrowd=1: training ignores them',
        'unread': 'masks are no polygons: poly2mask=False ignores them in training',
    }
    least = {'crowds': MANY_CROWDS * uses.total()}
    return [f'{uses[use]} of {uses.total()} {texts[use]}' for use in texts if uses[use] > least.get(use, 0)]


def _check_sizes(images: Mapping[Any, dict], used: Sequence[dict], reading: Reading) -> list[str]:
    """Compare the sizes in a file with those of the images as they are read: of all, or of a sample.

    Raises:
        DataError: if masks do not fit, or boxes reach out of an image and so must belong to one of another size.
    """
    sizes = {i: (image['width'], image['height']) for i, image in images.items()}
    masked = [ann for ann in used if reading.masks == 'all' and isinstance(ann['segmentation'], dict)]
    odd: list[dict] = [ann for ann in masked if _mask_size(ann) != sizes[ann['image_id']]]
    texts = {}
    if reading.images is not None and reading.read is not None:
        chosen = dict.fromkeys(spread(list(images)) + spread([ann['image_id'] for ann in odd]))
        paths = {i: os.path.join(reading.images, images[i]['file_name']) for i in chosen}
        expected = {path: sizes[i] for i, path in paths.items()}
        wrong = unlike(expected, reading.read)
        texts = {i: describe_unlike(p, wrong, expected, 'annotations') for i, p in paths.items() if p in wrong}
        sizes |= {i: wrong[paths[i]][:2] for i in texts}
        odd = [ann for ann in masked if _mask_size(ann) != sizes[ann['image_id']]]
    misfits = odd + [ann for ann in used if ann['image_id'] in texts and _reaches_out(ann, sizes[ann['image_id']])]
    for ann in misfits:
        if ann['image_id'] in texts:
            raise DataError(texts[ann['image_id']])
    if odd:
        ids = few(str(ann['id']) for ann in odd)
        size = '{} x {}'.format(*_mask_size(odd[0]))
        raise DataError(f'has {len(odd)} masks of another size than their image: ids {ids}; the first is {size}')
    return list(texts.values())[:1]


def _mask_size(ann: Mapping[str, Any]) -> tuple[int, int]:
    height, width = ann['segmentation']['size']
    return width, height


def _reaches_out(ann: Mapping[str, Any], size: tuple[int, int]) -> bool:
    x, y, width, height = ann['bbox']
    return x + width > size[0] + 1 or y + height > size[1] + 1
