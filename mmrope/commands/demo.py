"""Run a detector, a segmenter or a classifier on images: draw the predictions and write them as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cli import add_options, add_out_dir, add_overwrite, check_output, parse_size, share, unused
from .errors import CommandError, errors_of, sentence

if TYPE_CHECKING:
    from .prediction import Predictor
    from .skipping import Skips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, folders of images, or globs')
    parser.add_argument('config', metavar='CONFIG', help="path of a config, or the name of one of mmrope's")
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a file, a URL, hf-hub:OWNER/NAME')
    parser.add_argument('--size', type=parse_size, help='test at another image size: N, HxW or short:N')
    add_out_dir(parser, 'outputs')
    parser.add_argument(
        '--score-thr', type=share, default=0.3, help='leave out detections with a lower score, 0 to 1 (default: 0.3)'
    )
    parser.add_argument(
        '--opacity', type=share, default=0.5, help='opacity of masks and segments, 0 to 1 (default: 0.5)'
    )
    add_overwrite(parser)
    add_options(parser)


def run(args: argparse.Namespace) -> None:
    """Predict; an input that is not an image, or makes the model fail, is reported and skipped."""
    from .checks.config import check_checkpoint
    from .config import read_config
    from .images import find_images
    from .prediction import Predictor
    from .sizes import size_overrides
    from .skipping import Skips

    skips = Skips(args.prog, args.traceback)
    results: dict[str, dict] = {}
    check_output(args.out_dir / 'predictions.json', args.overwrite)
    cfg = read_config(args)
    check_checkpoint(args.checkpoint, 'CHECKPOINT')
    if args.size is not None:
        with errors_of('--size'):
            cfg.merge_from_dict(size_overrides(cfg, args.size))
    files, skips.problems = find_images(args.images)
    if files:
        cfg.log_level = 'WARNING'
        predictor = Predictor(cfg, args.checkpoint, args.score_thr)
        try:
            predict(predictor, files, args.out_dir, args.opacity, skips, results)
        finally:  # keep the results so far on a full disk or Ctrl-C, too
            if results:
                described = dict(config=args.config, checkpoint=args.checkpoint, score_thr=args.score_thr)
                text = json.dumps({**described, 'classes': predictor.classes, 'images': results}, indent=2)
                (args.out_dir / 'predictions.json').write_text(f'{text}\n')
    if results:
        print(f'{args.out_dir}: predictions.json and {len(results)} drawn images')
    skips.report(f'{len(results)} predicted')


def predict(
    predictor: Predictor,
    files: Sequence[Path],
    out_dir: Path,
    opacity: float,
    skips: Skips,
    results: dict[str, dict],
) -> None:
    """Predict files and write the drawings.

    Args:
        predictor: the model.
        files: image files.
        out_dir: folder to write to.
        opacity: of masks and segments, from 0 to 1.
        skips: collects the files that cannot be predicted.
        results: filled with the record of each file.
    """
    import sys

    import numpy as np
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    from .images import note_on_depth, read_image

    names: set[str] = set()
    for folder in ('drawn', 'maps')[: 2 if predictor.scope == 'mmseg' else 1]:
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    for path in track(files, 'images', console=Console(stderr=True)):
        with skips.skipping(path):
            image = read_image(path)
            try:
                prediction = predictor(image)
            except Exception as error:
                height, width = image.shape[:2]
                reason = f'{path}, {width} x {height} pixels, could not be predicted: {sentence(error)}'
                raise CommandError(reason) from error
            name = unused(f'{path.stem}.png', names)
            picture = predictor.draw(image, prediction, opacity)
            Image.fromarray(picture[..., ::-1]).save(out_dir / 'drawn' / name)
            record = {'drawn': f'drawn/{name}', **prediction.record}
            if prediction.class_map is not None:
                kind = np.uint8 if prediction.class_map.max() < 256 else np.uint16
                Image.fromarray(prediction.class_map.astype(kind)).save(out_dir / 'maps' / name)
                record['map'] = f'maps/{name}'
            if note := note_on_depth(path, image):
                sys.stderr.write(f'{skips.prog}: {note}\n')
            results[str(path)] = record
