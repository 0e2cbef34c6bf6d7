"""Predict images with a detector, a segmenter or a classifier: draw what it finds, and write it as JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from mmrope.commands.outputs import add_overwrite, check_output
from PIL import Image
from rich.console import Console
from rich.progress import track

from mmrope.commands.checks.config import CommandError, check_checkpoint
from mmrope.commands.images import find_images
from mmrope.commands.prediction import Predictor
from mmrope.commands.runner import OptionsAction, ToolParser, errors_in_one_sentence, load_config
from mmrope.commands.sizes import parse_size, size_overrides
from mmrope.commands.skipping import Skips


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(prog='demo.py', description=__doc__)
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, folders of images, or globs')
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint: a file, a URL, hf-hub:OWNER/NAME')
    parser.add_argument('--size', help='another image size: N, HEIGHTxWIDTH or short:N, as in test_resolutions.py')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), help='where to write (default: %(default)s)')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score of a detection, drawn and in JSON (default: 0.3)'
    )
    parser.add_argument('--opacity', type=share, default=0.5, help='of masks and segments, 0 to 1 (default: 0.5)')
    add_overwrite(parser)
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='as in test.py')
    parser.add_argument('--traceback', action='store_true', help='show the frames of an error, not only its message')
    parser.set_defaults(data_root=None, work_dir=None, launcher='none', local_rank=0)
    return parser.parse_args(arguments)


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must be a number from 0 to 1, but got {text!r}')
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict as the command line says; what is no image, or cannot be predicted, is named and the exit code is 1."""
    args = parse_arguments(arguments)
    skips = Skips('demo.py', args.traceback)
    results: dict[str, dict] = {}
    with errors_in_one_sentence('demo.py', args):
        check_output(args.out_dir / 'predictions.json', args.overwrite)
        cfg = load_config(args)
        check_checkpoint(args.checkpoint, 'CHECKPOINT')
        if args.size is not None:
            try:
                cfg.merge_from_dict(size_overrides(cfg, parse_size(args.size)))
            except ValueError as error:
                raise CommandError(f'--size: {error}') from error
        files, skips.problems = find_images(args.images)
        if files:
            cfg.log_level = 'WARNING'
            predictor = Predictor(cfg, args.checkpoint, args.score_thr, args.opacity)
            try:
                predict(predictor, files, args.out_dir, skips, results)
            finally:  # what there is when a disk is full, or on Ctrl-C
                write(args, predictor.classes, results)
    if results:
        print(f'{args.out_dir}: predictions.json and {len(results)} drawn images')
    skips.report(f'{len(results)} predicted')


def write(args: argparse.Namespace, classes: Sequence[str], results: dict[str, dict]) -> None:
    """Write predictions.json."""
    described = dict(config=args.config, checkpoint=args.checkpoint, score_thr=args.score_thr, classes=classes)
    text = json.dumps({**described, 'images': results}, indent=2)
    (args.out_dir / 'predictions.json').write_text(f'{text}\n')


def predict(predictor: Predictor, files: Sequence[Path], out_dir: Path, skips: Skips, results: dict[str, dict]) -> None:
    """Predict files and write what is drawn; the records go to ``results``, by file."""
    names: set[str] = set()
    for folder in ('drawn', 'maps')[: 2 if predictor.scope == 'mmseg' else 1]:
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    for path in track(files, 'images', console=Console(stderr=True)):
        with skips.skipping(path):
            record, picture, class_map, note = predictor(path)
            name = unused(f'{path.stem}.png', names)
            Image.fromarray(picture).save(out_dir / 'drawn' / name)
            record = {'drawn': f'drawn/{name}', **record}
            if class_map is not None:
                kind = np.uint8 if class_map.max() < 256 else np.uint16
                Image.fromarray(class_map.astype(kind)).save(out_dir / 'maps' / name)
                record['map'] = f'maps/{name}'
            if note:
                sys.stderr.write(f'demo.py: {note}\n')
            results[str(path)] = record


def unused(name: str, names: set[str]) -> str:
    """Number a name that another image of this call has, and remember it."""
    stem, suffix = name[:-4], name[-4:]
    numbers = (f'{stem}_{number}{suffix}' for number in count(2))
    free = name if name not in names else next(other for other in numbers if other not in names)
    names.add(free)
    return free


if __name__ == '__main__':
    main()
