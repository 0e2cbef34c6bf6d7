"""Runs an ONNX file of `mmrope export --part model` on images. It needs numpy, onnxruntime and Pillow, and no torch.

    python run_onnx.py MODEL.onnx IMAGE ... [--out FOLDER]

A segmenter writes the class map of each image as FOLDER/NAME.png, in the colours of its classes; a classifier prints
the class. Everything that the file needs to know is in the file: classes, colours, mean, sizes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main() -> None:
    """Run the file on each image."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('model', help='ONNX file of mmrope export --part model')
    parser.add_argument('images', nargs='+', type=Path, help='image files')
    parser.add_argument('--out', type=Path, default=Path('maps'), help='folder of the class maps (default: maps)')
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(args.model, providers=onnxruntime.get_available_providers())
    rule = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    if rule['task'] == 'features':
        parser.error(f'{args.model} gives feature maps; export with --part model')
    for path in args.images:
        with Image.open(path) as file:
            image = read(file)
        pixels, (height, width) = prepare(image, rule)
        (output,) = session.run(None, {'images': pixels})
        if rule['task'] == 'classification':
            print(f'{path}: {label(output[0], rule)}')
        else:
            args.out.mkdir(parents=True, exist_ok=True)
            class_map = to_class_map(output[0][..., :height, :width], image.size)
            coloured(class_map, rule).save(args.out / f'{path.stem}.png')
            print(f'{path}: {", ".join(shares(class_map, rule))}')


def read(file: Image.Image) -> Image.Image:
    """Return an image in RGB, turned as its EXIF data says; of 16-bit images the upper 8 bits."""
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert('RGB')


def prepare(image: Image.Image, rule: dict) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the input of the network, (1, 3, H, W), and the height and width that the image has in it."""
    if rule['resize']:
        width, height = size_of(image.size, rule['resize'])
        image = resize(image, (width, height), rule['resize']['interpolation'], rule['resize']['antialias'])
    if rule['crop']:
        (width, height), (high, wide) = image.size, rule['crop']
        left, top = max(0, round((width - wide) / 2)), max(0, round((height - high) / 2))
        image = image.crop((left, top, min(width, left + wide), min(height, top + high)))
    pixels = np.asarray(image, np.float32)
    if rule['channels'] == 'BGR':
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.float32(rule['mean'])) / np.float32(rule['std'])
    height, width = pixels.shape[:2]
    pad, divisor = rule['pad'], rule['pad']['divisor']
    least = pad.get('size') or (0, 0)
    below, right = (max(-(-side // divisor) * divisor, floor) - side for side, floor in zip((height, width), least))
    pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), constant_values=pad['value'])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), (height, width)


def size_of(size: tuple[int, int], rule: dict) -> tuple[int, int]:
    """Return the width and height that a rule gives an image."""
    width, height = size
    if 'height' in rule:
        return rule['width'], rule['height']
    if 'within' in rule:
        factor = min(rule['within'][0] / height, rule['within'][1] / width)
        return max(1, int(width * factor)), max(1, int(height * factor))
    factor = rule['shorter'] / min(size)
    if rule['longer']:
        factor = min(factor, rule['longer'] / max(size))
    rounding = 0 if rule['floor'] else 0.5
    return int(width * factor + rounding), int(height * factor + rounding)


def resize(image: Image.Image, size: tuple[int, int], interpolation: str, antialias: bool) -> Image.Image:
    """Resize as Pillow does or, without antialias, as OpenCV does: from the nearest pixels alone."""
    kind = Image.Resampling[interpolation.upper()]
    if antialias:
        return image.resize(size, kind)
    factors = image.width / size[0], image.height / size[1]
    return image.transform(size, Image.Transform.AFFINE, (factors[0], 0, 0, 0, factors[1], 0), kind)


def to_class_map(output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the class of each pixel of the image from classes (H, W), or from scores (classes, H, W)."""
    if output.ndim == 2:
        return np.asarray(Image.fromarray(output).resize(size, Image.Resampling.NEAREST))
    scores = [np.asarray(resize(Image.fromarray(one), size, 'bilinear', antialias=False)) for one in output]
    return np.argmax(scores, axis=0)


def coloured(class_map: np.ndarray, rule: dict) -> Image.Image:
    """Return a class map as an image, whose values are the classes, with a palette."""
    image = Image.fromarray(class_map.astype(np.uint8 if class_map.max() < 256 else np.uint16))
    if image.mode == 'L' and rule.get('palette'):
        image.putpalette([value for colour in rule['palette'] for value in colour])
    return image


def name(number: int, rule: dict) -> str:
    """Return the name of a class."""
    classes = rule.get('classes') or ()
    return classes[number] if number < len(classes) else str(number)


def label(output: np.ndarray, rule: dict) -> str:
    """Return the name of the class of an image and, from scores, its probability."""
    if output.ndim == 0:
        return name(int(output), rule)
    odds = np.exp(output - output.max())
    return f'{name(int(output.argmax()), rule)} {odds.max() / odds.sum():.3f}'


def shares(class_map: np.ndarray, rule: dict) -> list[str]:
    """Return the share of pixels of each class that a class map has."""
    numbers, counts = np.unique(class_map, return_counts=True)
    return [f'{name(number, rule)} {count / class_map.size:.1%}' for number, count in zip(numbers, counts)]


if __name__ == '__main__':
    main()
