"""Annotations of a COCO file as MMDetection reads them: which are broken, and which it learns nothing from."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

from ...text import few

# From this share on it is worth a warning that annotations are crowds: they are 1 % in COCO.
MANY_CROWDS = 0.2


class Fault(NamedTuple):
    """What is wrong with an annotation: said of one, and of several that share the fault."""

    one: str
    several: str


@dataclass
class Use:
    """How many boxes of the classes a training learns from, and why it does not learn from the others."""

    good: int = 0
    outside: int = 0
    crowds: int = 0
    unread: int = 0

    def nothing(self) -> str | None:
        """Say why there is nothing to learn; nothing if there is."""
        if self.good:
            return None
        if self.crowds and not self.outside + self.unread:
            return (
                f'has nothing to learn from: all {self.crowds} boxes of the classes are marked iscrowd=1, which '
                'training ignores; single objects have iscrowd=0'
            )
        if self.unread:
            return (
                f'has nothing to learn from: {self.unread} masks are no polygons, and poly2mask=False in '
                'LoadAnnotations ignores them; leave it out'
            )
        return 'has no box of the classes that lies in an image and has an area'

    def notes(self) -> list[str]:
        """Say how many boxes are passed over, where that may not be meant."""
        total, notes = self.good + self.outside + self.crowds + self.unread, []
        if self.outside:
            skipped = 'boxes have no area or lie outside of their image: training skips them'
            notes.append(f'{self.outside} of {total} {skipped}')
        if self.crowds >= MANY_CROWDS * total > 0:
            notes.append(f'{self.crowds} of {total} boxes are marked iscrowd=1: training ignores them')
        if self.unread:
            notes.append(f'{self.unread} of {total} masks are no polygons: poly2mask=False ignores them in training')
        return notes


@dataclass
class Instances:
    """The annotations of a file.

    Attributes:
        faults: The ids of the annotations that have a fault, by the fault and its description.
        use: What a training makes of the others.
        odd_masks: Masks of another size than their image is said to have: id and ``(width, height)``, by image.
    """

    faults: dict[str, list[tuple[Any, Fault]]] = field(default_factory=lambda: defaultdict(list))
    use: Use = field(default_factory=Use)
    odd_masks: dict[Any, list[tuple[Any, tuple[int, int]]]] = field(default_factory=lambda: defaultdict(list))

    def describe_faults(self) -> str | None:
        """Say how many annotations have which fault, with a few of their ids; nothing if none has one."""
        found = [fault for faults in self.faults.values() for fault in faults]
        if not found:
            return None
        if len(found) == 1:
            return f'has a broken annotation: the one of id {found[0][0]} {found[0][1].one}'
        kinds = [
            f'{len(faults)} {kind} (ids {few([str(i) for i, _ in faults])})'
            if len(faults) > 1
            else f'the one of id {faults[0][0]} {faults[0][1].one}'
            for kind, faults in self.faults.items()
        ]
        return f'has {len(found)} broken annotations: {"; ".join(kinds)}'


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
        annotations: The annotations, each with an id.
        sizes: Width and height by the id of an image.
        categories: The ids of the categories that the file lists.
        taken: Those that the classes of the data set name.
        kept: The ids of the images that the data set's filter keeps.
        masks: ``'none'``, ``'polygons'`` where others are ignored, or ``'all'``.
        training: Whether it is for training: a metric needs ``iscrowd`` too.
    """
    found = Instances()
    for ann in annotations:
        fault = next(_faults_of(ann, sizes, categories, training), None)
        used = fault is None and ann['category_id'] in taken and not ann.get('ignore')
        inside = used and _has_area(ann, sizes[ann['image_id']])
        if inside and masks != 'none':
            fault = _fault_of_mask(ann.get('segmentation'))
        if fault is not None:
            found.faults[fault.several].append((ann['id'], fault))
        elif used and ann['image_id'] in kept:
            _count(found, ann, inside, masks)
        if inside and fault is None and masks != 'none' and isinstance(ann['segmentation'], Mapping):
            size = tuple(ann['segmentation']['size'][::-1])
            if size != tuple(sizes[ann['image_id']]):
                found.odd_masks[ann['image_id']].append((ann['id'], size))
    return found


def _count(found: Instances, ann: Mapping[str, Any], inside: bool, masks: str) -> None:
    if not inside:
        found.use.outside += 1
    elif ann.get('iscrowd'):
        found.use.crowds += 1
    elif masks == 'polygons' and isinstance(ann['segmentation'], Mapping):
        found.use.unread += 1
    else:
        found.use.good += 1


def _faults_of(ann: Mapping[str, Any], sizes: Mapping, categories: Collection, training: bool) -> Iterator[Fault]:
    """Yield what MMDetection fails on or drops in silence; training takes a missing ``iscrowd`` for 0."""
    needed = ('image_id', 'category_id', 'bbox', 'area', *(() if training else ('iscrowd',)))
    missing = few(key for key in needed if key not in ann)
    if missing:
        yield Fault(f'has no {missing}', f'have no {missing}')
        return
    image, category, bbox, area = (ann[key] for key in needed[:4])
    if image not in sizes:
        yield Fault(f'is of image {image}, which is not listed', 'are of images that are not listed')
    if category not in categories:
        yield Fault(f'is of category {category}, which is not listed', 'are of categories that are not listed')
    if not are_numbers(bbox) or len(bbox) != 4:
        rule = 'x, y, width, height'
        yield Fault(f'has bbox {bbox}, which must be {rule}', f'have a bbox that is not {rule}')
    if not isinstance(area, Real):
        yield Fault(f'has area {area!r}, which must be a number', 'have an area that is no number')


def _fault_of_mask(mask: Any) -> Fault | None:
    if isinstance(mask, Mapping):
        return _fault_of_run_lengths(mask)
    if not isinstance(mask, list) or not mask:
        return Fault('has no mask', 'have no mask')
    rule = 'not three or more pairs of numbers'
    for polygon in mask:
        if not are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            shown = few([str(polygon)])[:80]
            return Fault(f'has a polygon that is {rule}: {shown}', f'have polygons that are {rule}')
    return None


def _fault_of_run_lengths(mask: Mapping[str, Any]) -> Fault | None:
    size, counts = mask.get('size'), mask.get('counts')
    if not are_numbers(size) or len(size) != 2 or not isinstance(counts, (list, str)):
        rule = 'mask of neither polygons nor counts and size'
        return Fault(f'has a {rule}', f'have a {rule}')
    if isinstance(counts, list) and (not are_numbers(counts) or sum(counts) != size[0] * size[1]):
        rule = 'mask whose counts do not add up to its size'
        return Fault(f'has a {rule}, {size[0]} x {size[1]}', f'have a {rule}')
    return None


def are_numbers(values: Any) -> bool:
    """Say whether a value is a list of finite numbers."""
    try:
        return isinstance(values, list) and math.isfinite(sum(values))  # at C speed: what is not finite stays in a sum
    except TypeError:
        return False


def _has_area(ann: Mapping[str, Any], size: tuple[float, float]) -> bool:
    """Ask what MMDetection's ``CocoDataset`` asks before it takes a box."""
    x, y, width, height = ann['bbox']
    inside = min(x + width, size[0]) > max(x, 0) and min(y + height, size[1]) > max(y, 0)
    return inside and width >= 1 and height >= 1 and ann['area'] > 0
