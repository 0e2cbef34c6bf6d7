"""The embedded data set: real handwriting in made scenes, as a COCO and as an ADE20k-style data set of the same images.

The digits are scikit-learn's copy of the test set of E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten
Digits*, UCI Machine Learning Repository, 1998: 1797 images of 8 x 8 pixels.

    images/{training,validation}/000000.png ...           RGB
    annotations/{training,validation}/000000.png ...      uint8: 0 unlabelled (none is), 1 background, 2 - 11 digits
    annotations/instances_{training,validation}.json      COCO, run-length masks of the visible parts
    digits.json                                           the arguments, and checksums of all of the above
"""

import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from rich.progress import track

from mmrope.datasets.scenes import Scene, compose_scene, tight_boxes

CLASSES = tuple('0123456789')
# ten colours that stay apart under colour vision deficiencies: M. Petroff, arXiv 2107.02270
PALETTE = [
    (63, 144, 218),
    (255, 169, 14),
    (189, 31, 1),
    (148, 164, 162),
    (131, 45, 182),
    (169, 107, 89),
    (231, 99, 0),
    (185, 172, 112),
    (113, 117, 129),
    (146, 218, 221),
]
SPLITS = ('training', 'validation')

_FORMAT = 'mmrope digits'
_VERSION = 1
_FOLDERS = tuple(f'{kind}/{split}' for kind in ('images', 'annotations') for split in SPLITS)
_TABLES = tuple(f'annotations/instances_{split}.json' for split in SPLITS)
_OURS = re.compile(
    r'(images|annotations)/(training|validation)/\d{6}\.png'
    r'|annotations/instances_(training|validation)\.json'
    r'|digits\.json'
)
_MARKER = 'unfinished-mmrope-digits'
_MANY = 256  # scenes, from which on several processes draw


def make_digits(
    root: str | Path,
    images: int = 4000,
    val_images: int = 500,
    size: int | tuple[int, int] = 128,
    seed: int = 0,
    progress: bool = True,
    overwrite: bool = False,
) -> bool:
    """Write the data set to a folder, or check the one that is there.

    ``images`` and ``val_images`` count scenes, ``size`` is (H, W) in pixels, or one number for both; from 64 on people
    can read the digits. The same arguments give the same bytes, and scene i stays the same however many there are. The
    folder appears when it is complete, and not before.

    Returns True when it was written; False when it was there, made with the same arguments, with all files as written.

    Raises ValueError when an argument is out of range, when the folder holds something else, or when it was made with
    other arguments or is damaged; ``overwrite`` replaces it in the last two cases. Raises ImportError when scikit-learn
    or pycocotools is missing.
    """
    root = Path(root)
    parameters = check_parameters(images, val_images, size, seed)
    manifest = read_manifest(root)
    if manifest is not None and not overwrite:
        check_same(root, manifest, parameters)
        return False
    with staged(root) as folder:
        for split, count in zip(SPLITS, (images, val_images), strict=True):
            write_split(folder, split, count, tuple(parameters['size']), seed, progress)
        manifest = {'format': _FORMAT, 'parameters': parameters, 'sha256': checksums(folder)}
        (folder / 'digits.json').write_text(json.dumps(manifest, indent=2) + '\n')
    return True


def check_parameters(images: int, val_images: int, size: int | tuple[int, int], seed: int) -> dict:
    """The arguments as ``digits.json`` keeps them. Raises ValueError when one is no integer or out of range."""
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, tuple | list) else None
    if sides is None or len(sides) != 2:
        raise ValueError(f'size must be one integer or two, (H, W), got {size!r}')
    for name, value, least, most in (
        ('images', images, 1, 10**6),
        ('val_images', val_images, 1, 10**6),
        *(('size', side, 32, 4096) for side in sides),
        ('seed', seed, 0, 2**64 - 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f'{name} must be an integer from {least} to {most}, got {value!r}')
    return {'version': _VERSION, 'images': images, 'val_images': val_images, 'size': sides, 'seed': seed}


def load_handwriting(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Glyphs (M, 8, 8) float64 from 0 to 1 and labels (M,) of a split: the first three quarters, or the rest.

    The cut is in one place because neighbours come from one writer: the splits share no sample and next to no hand.
    """
    digits = _require('sklearn.datasets', 'scikit-learn').load_digits()
    cut = len(digits.target) * 3 // 4
    part = slice(cut) if split == 'training' else slice(cut, None)
    return digits.images[part] / 16, digits.target[part]


def make_scene(
    split: str, index: int, handwriting: tuple[np.ndarray, np.ndarray], size: tuple[int, int], seed: int
) -> Scene:
    """Scene number ``index`` of a split, from the handwriting of that split: a pure function of its arguments."""
    return compose_scene(np.random.default_rng([seed, SPLITS.index(split), index]), *handwriting, size)


def write_split(folder: Path, split: str, count: int, size: tuple[int, int], seed: int, progress: bool) -> None:
    """Write the images, the label maps and the COCO file of a split below a folder, on all cores if there is enough."""
    entries, annotations = [], []
    for kind in ('images', 'annotations'):
        (folder / kind / split).mkdir(parents=True)
    write = partial(write_scene, folder, split, load_handwriting(split), size, seed)
    with _mapper(count) as mapper:
        for index, found in enumerate(
            track(mapper(write, range(count)), f'drawing {split} scenes', total=count, disable=not progress)
        ):
            entries.append({'id': index, 'file_name': _file_name(index), 'height': size[0], 'width': size[1]})
            annotations += [annotation | {'id': len(annotations) + n} for n, annotation in enumerate(found, 1)]
    table = coco_table(entries, annotations)
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(table) + '\n')


def write_scene(
    folder: Path, split: str, handwriting: tuple[np.ndarray, np.ndarray], size: tuple[int, int], seed: int, index: int
) -> list[dict]:
    """Write the image and the label map of one scene; returns its COCO annotations, counted from 1."""
    scene, name = make_scene(split, index, handwriting, size, seed), _file_name(index)
    Image.fromarray(scene.image).save(folder / 'images' / split / name)
    Image.fromarray(label_map(scene)).save(folder / 'annotations' / split / name)
    return coco_annotations(scene, index, first_id=1)


@contextmanager
def _mapper(count: int) -> Iterator[Callable]:
    """``map``, in order, by one process a core; plain ``map`` where so few calls would not repay the processes."""
    cores = len(os.sched_getaffinity(0))
    if cores == 1 or count < _MANY:
        yield map
        return
    # The interrupt is the parent's to handle: it ends the others.
    with Pool(cores, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        yield partial(pool.imap, chunksize=16)


def _file_name(index: int) -> str:
    return f'{index:06d}.png'


def label_map(scene: Scene) -> np.ndarray:
    """The class of each pixel, counted as ADE20k does, (H, W) uint8: 1 background, 2 - 11 the digits; 0 is not used."""
    labels = np.ones(scene.image.shape[:2], np.uint8)
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        labels[mask] = label + 2
    return labels


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """The visible part of each digit of a scene: run lengths, tight box (x, y, width, height), area in pixels."""
    masks = scene.masks
    boxes = tight_boxes(masks)
    boxes[:, 2:] -= boxes[:, :2]
    columns_first = np.asfortranarray(masks.transpose(1, 2, 0), np.uint8)  # (H, W, N), as pycocotools wants it
    runs = _require('pycocotools.mask', 'pycocotools').encode(columns_first)
    return [
        {
            'id': number,
            'image_id': image_id,
            'category_id': int(label) + 1,
            'bbox': box.tolist(),
            'area': int(mask.sum()),
            'iscrowd': 0,
            'segmentation': {'size': run['size'], 'counts': run['counts'].decode('ascii')},
        }
        for number, (label, box, mask, run) in enumerate(zip(scene.labels, boxes, masks, runs, strict=True), first_id)
    ]


def coco_table(images: list[dict], annotations: list[dict]) -> dict:
    """A COCO file as a dict; categories 1 - 10 are the digits 0 - 9."""
    return {
        'info': {'description': 'mmrope digits: handwritten digits in made scenes', 'version': str(_VERSION)},
        'licenses': [],
        'categories': [
            {'id': number, 'name': name, 'supercategory': 'digit'} for number, name in enumerate(CLASSES, 1)
        ],
        'images': images,
        'annotations': annotations,
    }


def read_manifest(root: Path) -> dict | None:
    """What ``digits.json`` of a folder says; None when the folder is missing or empty.

    Raises ValueError when there is anything but a folder with a ``digits.json`` of this module.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        manifest = json.loads((root / 'digits.json').read_text())
        fields = manifest['parameters'], manifest['sha256']
        ours = manifest['format'] == _FORMAT and all(isinstance(field, dict) for field in fields)
    except (OSError, ValueError, LookupError, TypeError):
        ours = False
    if not ours:
        raise ValueError(f'{root} is no digits data set (it has no valid digits.json): choose another folder')
    return manifest


def check_same(root: Path, manifest: dict, parameters: dict) -> None:
    """Raise ValueError when the data set was made with other parameters or its files are not as they were written."""
    advice = 'choose another folder or replace it with overwrite=True (--overwrite)'
    noted = manifest['parameters']
    differ = [f'{name}={noted.get(name)}, not {new}' for name, new in parameters.items() if noted.get(name) != new]
    if differ:
        raise ValueError(f'{root} was made with {" and ".join(differ)}: {advice}')
    noted = manifest['sha256']
    damaged = [part for part, digest in checksums(root).items() if noted.get(part) != digest]
    if damaged:
        raise ValueError(f'{root} is damaged ({", ".join(damaged)}): {advice}')


def check_replaceable(root: Path) -> None:
    """Raise ValueError when the folder, if there is one, holds anything but a digits data set."""
    if read_manifest(root) is None:
        return
    names = (path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_symlink() or not path.is_dir())
    foreign = next((name for name in names if not _OURS.fullmatch(name)), None)
    if foreign is not None:
        raise ValueError(f'{root} holds {foreign}, which is no part of a digits data set: move it away first')


def checksums(folder: Path) -> dict[str, str]:
    """A SHA-256 of each folder of images and each COCO file, names and contents; what is missing counts as empty."""
    return {part: _checksum(folder / part) for part in (*_FOLDERS, *_TABLES)}


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """A new folder, next to ``root``, that takes its place when the body succeeds and vanishes when it does not.

    Raises ValueError when ``root`` holds anything but a digits data set, before the body and again before the exchange.
    """
    check_replaceable(root)
    target = root.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    workshop = Path(tempfile.mkdtemp(prefix=_workshop_prefix(target), dir=target.parent))
    try:
        (workshop / _MARKER).touch()
        (workshop / 'new').mkdir()
        yield workshop / 'new'
        check_replaceable(root)
        _exchange(workshop / 'new', target, workshop / 'old')
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _exchange(new: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _remove_leftovers(target: Path) -> None:
    """Remove what interrupted runs left next to ``target``; their marker says that they are ours."""
    for path in target.parent.iterdir():
        if path.name.startswith(_workshop_prefix(target)) and (path / _MARKER).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _workshop_prefix(target: Path) -> str:
    return f'.{target.name}-unfinished-'


def _checksum(path: Path) -> str:
    files = sorted(path.glob('*.png')) if path.is_dir() else [path] if path.is_file() else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _require(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"the digits data set needs {package}: pip install 'mmrope[digits]'") from error
