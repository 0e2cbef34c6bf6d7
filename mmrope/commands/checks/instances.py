"""Annotations of a COCO file as MMDetection reads them: which are broken, and which a training does not learn from."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeGuard

from ...text import few

# From this share on, crowds are worth a warning: they are 1 % in COCO.
MANY_CROWDS = 0.2


@dataclass
class Instances:
    """The annotations of a file.

    Attributes:
        faults: id and value of the annotations that have a fault, by its description.
        use: number of boxes that a training learns from, ``'good'``, and that it ignores: ``'outside'``, without an
            area in their image; ``'crowds'``; ``'unread'``, whose mask is no polygon where only polygons are read.
        run_lengths: image, id and ``(width, height)`` of each mask that is no polygon and that is read.
    """

    faults: dict[str, list[tuple[Any, Any]]] = field(default_factory=lambda: defaultdict(list))
    use: Counter[str] = field(default_factory=Counter)
    run_lengths: list[tuple[Any, Any, tuple[int, int]]] = field(default_factory=list)

    def describe_faults(self) -> str | None:
        """Count the annotations with each fault and list a few of their ids; ``None`` if none has one."""
        kinds = []
        for fault, found in self.faults.items():
            value = f'; the first is {str(found[0][1])[:80]}' if found[0][1] != '' else ''
            kinds.append(f'{len(found)} with {fault} (id {few(str(i) for i, _ in found)}{value})')
        total = sum(map(len, self.faults.values()))
        return f'has {total} broken annotation{"s" * (total > 1)}: {"; ".join(kinds)}' if total else None

    def nothing(self) -> str | None:
        """Say why a training has nothing to learn; ``None`` if it has."""
        start, use = 'has nothing to learn from:', self.use
        if use['good']:
            return None
        if use['crowds'] and not use['outside'] + use['unread']:
            return (
                f'{start} all {use["crowds"]} boxes of the classes are marked iscrowd=1, which training ignores; '
                'single objects have iscrowd=0'
            )
        if use['unread']:
            return (
                f'{start} {use["unread"]} masks are no polygons, and poly2mask=False in LoadAnnotations ignores them; '
                'leave it out'
            )
        return 'has no box of the classes that lies in an image and has an area'

    def notes(self) -> list[str]:
        """List how many boxes a training ignores, where that may be a mistake."""
        total = sum(self.use.values())
        texts = {
            'outside': 'boxes have no area or lie outside their image: training skips them',
            'crowds': 'boxes are marked iscrowd=1: training ignores them',
            'unread': 'masks are no polygons: poly2mask=False ignores them in training',
        }
        least = {'crowds': MANY_CROWDS * total}
        return [
            f'{self.use[kind]} of {total} {text}'
            for kind, text in texts.items()
            if self.use[kind] >= max(1, least.get(kind, 1))
        ]


def look_at_instances(
    annotations: Iterable[Mapping[str, Any]],
    sizes: Mapping[Any, tuple[float, float]],
    categories: Collection[Any],
    taken: Collection[Any],
    kept: Collection[Any],
    masks: str,
    training: bool,
) -> Instances:
    """Look at each annotation as MMDetection's ``CocoDataset`` and ``LoadAnnotations`` do.

    Args:
        annotations: the annotations, each with an id.
        sizes: width and height by the id of an image.
        categories: ids of the categories that the file lists.
        taken: ids of the categories that the classes of the data set name.
        kept: ids of the images that the data set's filter keeps.
        masks: ``'none'``, ``'polygons'`` where others are ignored, or ``'all'``.
        training: whether a training reads the file; a metric needs ``iscrowd`` too, which a training takes for 0.
    """
    found = Instances()
    needed = ('image_id', 'category_id', 'bbox', 'area', *(() if training else ('iscrowd',)))
    for ann in annotations:
        fault = _fault_of(ann, sizes, categories, needed)
        used = fault is None and ann['category_id'] in taken and not ann.get('ignore')
        inside = used and _has_area(ann, sizes[ann['image_id']])
        mask = ann.get('segmentation')
        if inside and masks != 'none':
            fault = _fault_of_mask(mask)
        if fault is not None:
            found.faults[fault[0]].append((ann['id'], fault[1]))
            continue
        if used and ann['image_id'] in kept:
            unread = masks == 'polygons' and isinstance(mask, Mapping)
            kind = 'outside' if not inside else 'crowds' if ann.get('iscrowd') else 'unread' if unread else 'good'
            found.use[kind] += 1
        if inside and masks == 'all' and isinstance(mask, Mapping):
            found.run_lengths.append((ann['image_id'], ann['id'], tuple(mask['size'][::-1])))
    return found


def _fault_of(ann: Mapping, sizes: Mapping, categories: Collection, needed: Iterable[str]) -> tuple[str, Any] | None:
    """Return what MMDetection fails on or drops in silence, and its value."""
    missing = [key for key in needed if key not in ann]
    if missing:
        return f'no {few(missing)}', ''
    if ann['image_id'] not in sizes:
        return 'an image_id that is not listed', ann['image_id']
    if ann['category_id'] not in categories:
        return 'a category_id that is not listed', ann['category_id']
    if not are_numbers(ann['bbox']) or len(ann['bbox']) != 4:
        return 'a bbox that is not x, y, width, height', ann['bbox']
    if not isinstance(ann['area'], Real):
        return 'an area that is no number', repr(ann['area'])
    return None


def _fault_of_mask(mask: Any) -> tuple[str, Any] | None:
    if isinstance(mask, Mapping):
        size, counts = mask.get('size'), mask.get('counts')
        if not are_numbers(size) or len(size) != 2 or not isinstance(counts, (list, str)):
            return 'a mask of neither polygons nor counts and size', ''
        if isinstance(counts, list) and (not are_numbers(counts) or sum(counts) != size[0] * size[1]):
            return 'a mask whose counts do not add up to its size', size
        return None
    if not isinstance(mask, list) or not mask:
        return 'no mask', ''
    broken = [part for part in mask if not are_numbers(part) or len(part) < 6 or len(part) % 2]
    return ('a polygon that is not three or more pairs of numbers', broken[0]) if broken else None


def are_numbers(values: Any) -> TypeGuard[list[float]]:
    """Say whether a value is a list of finite numbers."""
    try:
        return isinstance(values, list) and math.isfinite(sum(values))  # NaN and infinity stay in a sum
    except TypeError:
        return False


def _has_area(ann: Mapping[str, Any], size: tuple[float, float]) -> bool:
    """Say whether MMDetection's ``CocoDataset`` takes a box."""
    x, y, width, height = ann['bbox']
    inside = min(x + width, size[0]) > max(x, 0) and min(y + height, size[1]) > max(y, 0)
    return inside and width >= 1 and height >= 1 and ann['area'] > 0
