"""Folders of images with COCO annotations, in the layouts that labelling tools export.

annotations/instances_{train,val}*.json and folders of images
{train,valid,test}/_annotations.coco.json beside the images
one JSON file, and the images in any folder below: split by a fraction
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..text import few

# Words in the names of files and folders, and the part of a data set that they stand for.
PARTS = {
    'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
    'testing': 'test',
}  # fmt: skip
# Folders of class maps.
MAP_FOLDERS = (
    'annotations', 'annotation', 'masks', 'mask', 'labels', 'maps', 'ann_dir', 'SegmentationClass',
)  # fmt: skip
KEYS = ('images', 'annotations', 'categories')
LOOKED_UP = 20  # names of images that are looked for in each folder
LAYOUTS = (
    'annotations/instances_train.json and instances_val.json; train/ and valid/ with _annotations.coco.json in each; '
    'or one COCO file with images, annotations and categories'
)


@dataclass(frozen=True)
class CocoPart:
    """The training, validation or test part of a detection set.

    Attributes:
        file: annotations.
        images: folder that the file names of the images begin in.
        names: number of images.
        learned: number of images with an annotation.
        content: annotations to write to a file, where the hosts cannot read ``file`` itself; else ``None``.
    """

    file: str
    images: str
    names: int
    learned: int
    content: dict[str, Any] | None = None


@dataclass(frozen=True)
class DetectionSet:
    """A detection set.

    Attributes:
        root: its folder.
        classes: names, in the order of the file.
        parts: ``'train'``, ``'val'`` and maybe ``'test'``.
        unmasked: number of annotations without a mask, and of all; crowds are not counted.
        notes: decisions that a reader of the data has made, a sentence each.
    """

    root: str
    classes: tuple[str, ...]
    parts: Mapping[str, CocoPart]
    unmasked: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def masks(self) -> bool:
        """True if every object has a mask."""
        return self.unmasked[0] == 0


def part_of(name: str) -> str | None:
    """Return the part of a data set that the name of a file or folder says, ``'train'``, ``'val'`` or ``'test'``."""
    words = re.split(r'[^a-z]+', name.lower())
    return next((PARTS[word] for word in words if word in PARTS), None)


def split_names(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Split names at random into those to train on and at least one to validate on; the order of ``names`` is nothing.

    Raises:
        ValueError: if there is nothing left for one of both.
    """
    if not 0 < fraction < 1:
        raise ValueError(f'the fraction for validation must be above 0 and below 1, got {fraction}')
    if len(names) < 2:
        raise ValueError(f'two images or more are needed for a training and a validation part, got {len(names)}')
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    number = min(len(names) - 1, max(1, round(fraction * len(names))))
    return sorted(shuffled[number:]), sorted(shuffled[:number])


def read_coco_folder(root: str | os.PathLike[str], val_fraction: float = 0.2, seed: int = 0) -> DetectionSet:
    """Find annotations, images and classes in a folder.

    A set without a validation part is validated on its test part or, if it has none, on a fraction of its images.

    Args:
        root: the folder.
        val_fraction: of the images, to validate on, where the folder has one part only.
        seed: of the choice of these images.

    Raises:
        ValueError: if the folder has no COCO file, or its files do not fit together.
    """
    root = Path(root)
    files = _annotation_files(root)
    contents = {part: _with_defaults(_read(path)) for part, path in files.items()}
    categories = contents['train'][0]['categories']
    used = {ann.get('category_id') for content, _ in contents.values() for ann in content['annotations']}
    classes, roots = _classes(files['train'], categories, used)
    taken = {category['id'] for category in categories if category['name'] in classes}
    notes = [f'{root_} groups other categories and has no annotations: not a class' for root_ in roots]
    parts = {}
    for part, (content, changed) in contents.items():
        _check_classes(files['train'], classes, files[part], content['categories'])
        ids = {category['id'] for category in content['categories'] if category.get('name') in classes}
        folder = _image_folder(root, files[part], content['images'])
        learned = {ann.get('image_id') for ann in content['annotations'] if ann.get('category_id') in ids}
        kept = content if changed else None
        parts[part] = CocoPart(str(files[part]), folder, len(content['images']), len(learned), kept)
        if changed:
            notes.append(f'annotations of {files[part]} without area or iscrowd: area of the box, iscrowd=0')
    if 'val' not in parts and 'test' in parts:
        parts['val'] = parts['test']
        notes.append('no validation part: validated on the test part')
    elif 'val' not in parts:
        parts |= _split(parts['train'], contents['train'][0], taken, val_fraction, seed)
        notes.append(f'split of {files["train"]}: {val_fraction:g} of the images to validate on, seed {seed}')
    if not parts['train'].learned:
        raise ValueError(f'{files["train"]} has no annotations to learn from')
    objects = [ann for content, _ in contents.values() for ann in content['annotations'] if not ann.get('iscrowd')]
    unmasked = (sum(not ann.get('segmentation') for ann in objects), len(objects))
    return DetectionSet(str(root), classes, parts, unmasked, tuple(notes))


def _annotation_files(root: Path) -> dict[str, Path]:
    """Return the COCO file of each part; a single file is that of ``'train'``."""
    if not root.is_dir():
        raise ValueError(f'there is no folder {root}')
    found: dict[str | None, list[Path]] = {}
    for path in sorted([*root.glob('*.json'), *root.glob('*/*.json')]):
        inside = path.relative_to(root)
        if not any(name.startswith('.') for name in inside.parts) and _has_keys(path):
            part = part_of(path.stem) or (part_of(inside.parts[0]) if len(inside.parts) > 1 else None)
            found.setdefault(part, []).append(path)
    if 'train' not in found:
        found = {'train': found.get(None, [])} if set(found) <= {None} else found
    for part, paths in found.items():
        instances = [path for path in paths if path.stem.startswith('instances')]
        found[part] = paths = instances if len(instances) == 1 else paths
        if part is not None and len(paths) > 1:
            raise ValueError(f'{root} has several COCO files for {part}: {few(map(str, paths))}; leave one of them')
    if not found.get('train'):
        raise ValueError(f'{root} has no COCO file to train on; the layouts are {LAYOUTS}')
    return {part: paths[0] for part, paths in found.items() if part is not None}


def _has_keys(path: Path) -> bool:
    """Say whether a file names the three lists of COCO's format; other JSON files are left alone."""
    with open(path, 'rb') as file:
        text = file.read()
    return all(f'"{key}"'.encode() in text for key in KEYS)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON, or is cut short: {error}') from None
    for key in KEYS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f'{path} must hold a list of {key}')
        broken = [entry for entry in content[key] if not isinstance(entry, dict)]
        if broken:
            raise ValueError(f'{path} has {key} that are no objects: {str(broken[0])[:80]}')
    for key in ('images', 'categories'):
        needed = 'file_name' if key == 'images' else 'name'
        broken = [entry for entry in content[key] if not isinstance(entry.get(needed), str) or 'id' not in entry]
        if broken or not content[key]:
            without = f'without id or {needed}: {str(broken[0])[:80]}' if broken else 'of no entries'
            raise ValueError(f'{path} has {key} {without}')
    return content


def _with_defaults(content: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Give annotations the area and the iscrowd that some tools leave out; return whether any was missing."""
    changed = False
    for ann in content['annotations']:
        box = ann.get('bbox')
        if 'area' not in ann and _is_box(box):
            ann['area'], changed = box[2] * box[3], True
        if 'iscrowd' not in ann:
            ann['iscrowd'], changed = 0, True
    return content, changed


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(side, (int, float)) for side in box)


def _classes(path: Path, categories: list[dict[str, Any]], used: set[Any]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the classes, and of categories that only group others and have no annotations."""
    parents = {other.get('supercategory') for other in categories if other.get('supercategory') != other['name']}
    roots = [category for category in categories if category['id'] not in used and category['name'] in parents]
    classes = [category['name'] for category in categories if category not in roots]
    double = [name for name, count in Counter(classes).items() if count > 1]
    if double:
        ids = few(str(category['id']) for category in categories if category['name'] == double[0])
        raise ValueError(f'{path} has several categories that are named {double[0]}: ids {ids}')
    return tuple(classes), [category['name'] for category in roots]


def _check_classes(train: Path, classes: Sequence[str], path: Path, categories: list[dict[str, Any]]) -> None:
    """Check that a file has the classes in the same order, by which the hosts number them."""
    names = [category['name'] for category in categories]
    if [name for name in names if name in classes] != list(classes):
        raise ValueError(
            f'{path} has the categories {few(names, 10)}, and {train} the classes {few(classes, 10)}: both files need '
            'the same categories in the same order'
        )


def _image_folder(root: Path, file: Path, images: list[dict[str, Any]]) -> str:
    """Find the folder that the file names of a COCO file begin in.

    Parts and class maps may use the same file names: folders of class maps come last, and among the others those whose
    names say the part of the file come first.
    """
    part, beside = part_of(file.stem) or part_of(file.parent.name), str(file.parent)

    def order(folder: str) -> tuple[bool, bool, bool, str]:
        inside = os.path.relpath(folder, root)
        maps = any(name in MAP_FOLDERS for name in inside.split(os.sep))
        return maps, part_of(inside) != part, folder != beside, folder

    names = [image['file_name'] for image in images]
    sample = names[:: max(1, len(names) // LOOKED_UP)]
    best, most = '', -1
    for folder in sorted(_folders(root), key=order):
        number = sum(os.path.isfile(os.path.join(folder, name)) for name in sample)
        if number > most:
            best, most = folder, number
    if not most:
        raise ValueError(f'{file} names images that are in no folder below {root}: {few(sample)}')
    return best


def _folders(root: Path) -> Iterator[str]:
    for folder, inside, _ in os.walk(root):
        inside[:] = sorted(name for name in inside if not name.startswith('.'))
        yield folder


def _split(part: CocoPart, content: dict[str, Any], taken: set[Any], fraction: float, seed: int) -> dict[str, CocoPart]:
    """Split one part into two, each with the annotations of its images."""
    try:
        chosen = split_names([image['file_name'] for image in content['images']], fraction, seed)
    except ValueError as error:
        raise ValueError(f'{part.file}: {error}') from None
    parts = {}
    for name, names in zip(('train', 'val'), map(set, chosen)):
        images = [image for image in content['images'] if image['file_name'] in names]
        ids = {image['id'] for image in images}
        annotations = [ann for ann in content['annotations'] if ann.get('image_id') in ids]
        learned = {ann.get('image_id') for ann in annotations if ann.get('category_id') in taken}
        own = {**content, 'images': images, 'annotations': annotations}
        parts[name] = replace(part, names=len(images), learned=len(learned), content=own)
    return parts
