"""Folders of images with class maps, in the layouts that labelling tools export.

images/ and annotations/ with the same names, or names of folders that are as usual: masks, labels, img_dir, ...
images/{train,val}/, {train,val}/images/, lists train.txt and val.txt, or neither: split by a fraction
0001.jpg and 0001_mask.png, in two folders or beside each other
classes.txt: the name of a class in each line, in the order of the values 0, 1, ...; with three numbers, its colour
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..text import few
from .coco_folders import MAP_FOLDERS, part_of, split_names

IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'img_dir', 'JPEGImages')
LIST_FOLDERS = ('.', 'splits', 'ImageSets/Segmentation')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
TABLES = ('classes.txt', 'labels.txt', 'labelmap.txt', 'class_dict.csv', 'classes.csv')
NUMBERED = '_classes.csv'  # a table of value and name, in each folder of Roboflow's exports
VOID = {'void', 'ignore', 'ignored', 'unlabeled', 'unlabelled', 'unlabeled area', "don't care"}
IGNORED = 255  # the label that the hosts' losses and metrics leave out
LOOKED_AT = 200  # class maps whose colours are compared with the table
MAP_NAME = re.compile(r'.+?([_.-](?:masks?|labels?|seg|gt)\.\w+)', re.IGNORECASE)  # 0001_mask.png
COLOUR = re.compile(r'(.+?)[\s,:;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})\b')


class Table(NamedTuple):
    """The table of classes: names in the order of their values, and a colour for each, or none at all."""

    path: Path
    names: list[str]
    colours: list[tuple[int, int, int]]


@dataclass(frozen=True)
class MapsPart:
    """The training, validation or test part of a segmentation set.

    Attributes:
        images: folder of the images.
        maps: folder of the class maps.
        names: of the images, without suffix.
        whole: whether these are all images of the folder.
    """

    images: str
    maps: str
    names: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class SegmentationSet:
    """A segmentation set.

    Attributes:
        root: its folder.
        classes: names, without void.
        palette: a colour for each class; empty if the set has none.
        parts: ``'train'``, ``'val'`` and maybe ``'test'``.
        suffixes: of images and of class maps.
        values: class of each value of the maps, or of each of ``colours``; ``None`` where values are classes.
        colours: colours of the maps; ``None`` where maps hold values.
        notes: decisions that a reader of the data has made, a sentence each.
    """

    root: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    parts: Mapping[str, MapsPart]
    suffixes: tuple[str, str]
    values: tuple[int, ...] | None = None
    colours: tuple[tuple[int, int, int], ...] | None = None
    notes: tuple[str, ...] = ()


def read_segmentation_folder(root: str | os.PathLike[str], val_fraction: float = 0.2, seed: int = 0) -> SegmentationSet:
    """Find images, class maps and classes in a folder.

    A set without a validation part is validated on its test part or, if it has none, on a fraction of its images.

    Args:
        root: the folder.
        val_fraction: of the images, to validate on, where the folder has one part only.
        seed: of the choice of these images.

    Raises:
        ValueError: if folders or the table of classes are missing, or a class map has a colour of no class.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f'there is no folder {root}')
    table = read_table(root)
    folders = _folders(root)
    found = {part: _images_and_maps(*pair) for part, pair in folders.items()}
    suffixes = _suffixes(folders, found)
    names = {part: [name.removesuffix(suffixes[0]) for name in images] for part, (images, _) in found.items()}
    notes, whole = [], all(images != maps for images, maps in folders.values())
    if set(folders) == {'all'}:
        names, note = _listed(root, names['all'], suffixes[0], val_fraction, seed)
        folders, notes, whole = dict.fromkeys(names, folders['all']), [note], False
    parts = {part: MapsPart(str(folders[part][0]), str(folders[part][1]), tuple(names[part]), whole) for part in names}
    if 'train' not in parts or not {'val', 'test'} & set(parts):
        raise ValueError(f'{root} has the parts {few(parts)}: train and val are needed')
    if 'val' not in parts:
        parts['val'] = parts['test']
        notes.append('no validation part: validated on the test part')
    maps = [os.path.join(part.maps, name + suffixes[1]) for part in parts.values() for name in part.names]
    coloured = _are_coloured(maps, table)
    void = [name for name in table.names if name.lower() in VOID]
    classes = tuple(name for name in table.names if name not in void)
    if len(classes) < 2:
        raise ValueError(
            f'{table.path} names {len(classes)} class beside void; two are needed: name the background, too'
        )
    numbers = tuple(IGNORED if name in void else classes.index(name) for name in table.names)
    notes += [f'{name} is ignored (its pixels become {IGNORED})' for name in void]
    notes += [
        f'{name} is a class of its own, {classes.index(name)}' for name in classes if name.lower() == 'background'
    ]
    return SegmentationSet(
        str(root),
        classes,
        tuple(table.colours[table.names.index(name)] for name in classes) if table.colours else (),
        parts,
        suffixes,
        numbers if coloured or void else None,
        tuple(table.colours) if coloured else None,
        tuple(notes),
    )


def read_table(root: Path) -> Table:
    """Read the table of classes of a folder.

    A line is a name, or a name and a colour as red, green and blue, with spaces, commas or colons in between. Lines
    that begin with # and the first line of a CSV file say nothing.

    Raises:
        ValueError: if there is none, it names a class twice, or only some classes have a colour.
    """
    path = next((root / name for name in TABLES if (root / name).is_file()), None)
    if path is None and (numbered := sorted([*root.glob(NUMBERED), *root.glob(f'*/{NUMBERED}')])):
        return _numbered_table(numbered[0])
    if path is None:
        raise ValueError(
            f'{root} has no classes.txt: write the name of the class with the value 0 into its first line, that with '
            '1 into the second, and so on; for maps in colours a name and its red, green and blue (car 0 0 142)'
        )
    lines = [line.strip() for line in _lines(path)]
    lines = [line for line in lines if line and not line.startswith('#')][path.suffix == '.csv' :]
    found = [COLOUR.match(line) for line in lines]
    names = [match[1].strip() if match else line for match, line in zip(found, lines)]
    double = [name for name in names if names.count(name) > 1]
    if double or not names:
        raise ValueError(f'{path} names {f"the class {double[0]} twice" if double else "no class"}')
    plain = [line for match, line in zip(found, lines) if match is None]
    if plain and len(plain) < len(lines):
        raise ValueError(f'{path} has colours for some classes only; without one are {few(plain)}')
    colours = [(int(match[2]), int(match[3]), int(match[4])) for match in found if match]
    if len(set(colours)) < len(colours):
        raise ValueError(f'{path} gives two classes the same colour')
    return Table(path, names, colours)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} must be text in UTF-8, and {error}') from None


def _numbered_table(path: Path) -> Table:
    """Read a table whose lines are the value and the name of a class, below a line of titles."""
    rows = [line.split(',', 1) for line in _lines(path)[1:] if line.strip()]
    names = {row[0].strip(): row[-1].strip() for row in rows}
    if not rows or set(names) != {str(value) for value in range(len(rows))}:
        raise ValueError(f'{path} must number its classes 0, 1, 2 and so on, a value and a name in each line')
    return Table(path, [names[str(value)] for value in range(len(rows))], [])


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of images and of maps by part; ``'all'`` where the folders do not say."""
    images, maps = (_first(root, names) for names in (IMAGE_FOLDERS, MAP_FOLDERS))
    if images is not None and maps is not None:
        inner = {part_of(path.name): path for path in sorted(images.iterdir()) if path.is_dir()}
        outer = {part_of(path.name): path for path in sorted(maps.iterdir()) if path.is_dir()}
        parts = {part: (path, outer[part]) for part, path in inner.items() if part and part in outer}
        return parts or {'all': (images, maps)}
    parts = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        pair = (_first(folder, IMAGE_FOLDERS), _first(folder, MAP_FOLDERS))
        if not (part := part_of(folder.name)):
            continue
        if pair[0] is not None and pair[1] is not None:
            parts[part] = (pair[0], pair[1])
        elif _has_maps_beside(folder):
            parts[part] = (folder, folder)
    beside = [folder for folder in (root, images) if folder is not None and _has_maps_beside(folder)]
    if not parts and beside:
        return {'all': (beside[0], beside[0])}
    if not parts:
        raise ValueError(
            f'{root} has no folders images and annotations, none in folders train and val, and no class maps beside '
            'the images, such as 0001_mask.png beside 0001.jpg'
        )
    return parts


def _has_maps_beside(folder: Path) -> bool:
    """Say whether a folder holds images and class maps that are named by a suffix."""
    names = [path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return any(map(_map_suffix, names)) and not all(map(_map_suffix, names))


def _map_suffix(name: str) -> str:
    """Return the suffix by which a name is that of a class map, ``'_mask.png'``; empty if it is not."""
    match = MAP_NAME.fullmatch(name)
    return match[1] if match else ''


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _files(folder: Path) -> Iterator[str]:
    """Yield the image files below a folder, relative to it; hidden ones are left out, as the hosts do."""
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(folder)
        hidden = any(name.startswith('.') for name in inside.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not hidden:
            yield str(inside)


def _images_and_maps(images: Path, maps: Path) -> tuple[list[str], list[str]]:
    """Return the files of images and of maps; those of one folder are told apart by the suffix of the maps."""
    if images != maps:
        return list(_files(images)), list(_files(maps))
    names = list(_files(images))
    return [name for name in names if not _map_suffix(name)], [name for name in names if _map_suffix(name)]


def _suffixes(
    folders: Mapping[str, tuple[Path, Path]], found: Mapping[str, tuple[list[str], list[str]]]
) -> tuple[str, str]:
    """Return the suffix of all images and that of all maps, since MMSegmentation's data set takes one of each.

    A map has the name of its image or, behind it, a word such as mask.
    """
    of_images, of_maps = {}, {}
    for part, (images, maps) in found.items():
        stems = {os.path.splitext(name)[0] for name in images}
        for name in images:
            of_images[os.path.splitext(name)[1]] = str(folders[part][0] / name)
        for name in maps:
            stem, suffix = os.path.splitext(name)
            of_maps[suffix if stem in stems else _map_suffix(name) or suffix] = str(folders[part][1] / name)
    pairs = zip(('images', 'class maps'), (of_images, of_maps), zip(*folders.values()))
    return tuple(_only(suffixes, what, within) for what, suffixes, within in pairs)  # type: ignore[return-value]


def _only(suffixes: Mapping[str, str], what: str, folders: Sequence[Path]) -> str:
    if len(suffixes) != 1:
        found = f'of several suffixes: {few(suffixes.values())}; save them with one' if suffixes else 'none'
        raise ValueError(f'{few(map(str, dict.fromkeys(folders)))}: {what} must have one suffix, found {found}')
    return next(iter(suffixes))


def _listed(root: Path, names: list[str], suffix: str, fraction: float, seed: int) -> tuple[dict[str, list[str]], str]:
    """Return the names of each part, of lists or split at random, and a sentence about it."""
    lists = {
        part: path
        for folder in LIST_FOLDERS
        for path in sorted((root / folder).glob('*.txt'))
        if (part := part_of(path.stem)) and path.name not in TABLES
    }
    if 'train' not in lists:
        parts = dict(zip(('train', 'val'), split_names(names, fraction, seed)))
        return parts, f'split at random: {fraction:g} of the images to validate on, seed {seed}'
    found, known = {}, set(names)
    for part, path in lists.items():
        lines = [line.strip() for line in _lines(path) if line.strip()]
        found[part] = [line.removesuffix(suffix) for line in lines]
        missing = [name for name in found[part] if name not in known]
        if missing:
            raise ValueError(f'{path} names images that do not exist (*{suffix}): {few(missing)}')
    return found, f'parts as in {few(map(str, lists.values()))}'


def _are_coloured(maps: Sequence[str], table: Table) -> bool:
    """Say whether class maps hold colours; check those of a sample of them against the table."""
    chosen = [path for path in maps[:: max(1, len(maps) // LOOKED_AT)] if os.path.isfile(path)]
    known = set(table.colours)
    coloured = False
    for path in chosen:
        with Image.open(path) as image:
            if image.mode not in ('RGB', 'RGBA') and not (image.mode == 'P' and known):
                continue
            pixels = np.asarray(image.convert('RGB')).reshape(-1, 3)
        coloured = True
        unknown = {tuple(map(int, colour)) for colour in np.unique(pixels, axis=0)} - known
        if unknown:
            advice = 'list it' if known else f'write a colour behind each name in {table.path.name}'
            raise ValueError(
                f'{path} has the colour {" ".join(map(str, min(unknown)))}, which {table.path} does not list: {advice}'
            )
    return coloured
