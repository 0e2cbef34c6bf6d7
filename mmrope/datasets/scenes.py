"""Scenes of handwritten digits over clutter, drawn with numpy and Pillow alone.

Every random choice comes from the generator passed in, so a scene is a pure function of the generator, the glyphs and
the size.
"""

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

NUM_DIGITS = (3, 8)  # digits to place in a scene, both ends included
DIGIT_HEIGHT = (0.19, 0.44)  # of the shorter side of the scene
MAX_ANGLE = math.radians(30)  # keeps 6 and 9 apart
MAX_SHEAR = 0.15
MIN_VISIBLE = 0.6  # of a digit's own area
MAX_BOX_OVERLAP = 0.25  # of the smaller of two boxes: crossing strokes stay legible, a tangle does not
MIN_CONTRAST = 85.0  # colour distance of ink to its surroundings, at most 255
INK_LEVEL = 0.5  # threshold of ink in a smooth glyph: a higher one draws thinner strokes
PLACING_TRIES = 30
SUPERSAMPLING = 3  # subpixels along each side of a pixel, for smooth outlines


@dataclass(frozen=True)
class Scene:
    """An image and its digits, in painting order: later ones lie over earlier ones.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        shapes: (N, H, W) bool, each digit whole, as if nothing covered it.
        labels: (N,) int64, 0 - 9.
    """

    image: np.ndarray
    shapes: np.ndarray
    labels: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """Visible part of each digit, (N, H, W) bool."""
        return visible_masks(self.shapes)


def compose_scene(rng: np.random.Generator, glyphs: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> Scene:
    """Draw 3 - 8 digits over clutter. A digit without a free place is left out; the first always has one.

    glyphs (M, 8, 8), ink from 0 to 1; labels (M,); size (H, W) in pixels.
    """
    canvas = draw_clutter(rng, size)
    shapes, chosen = np.zeros((0, *size), bool), []
    for index in rng.integers(len(glyphs), size=rng.integers(NUM_DIGITS[0], NUM_DIGITS[1] + 1)):
        ink = draw_digit(rng, glyphs[index], min(size))
        window = find_window(rng, ink, shapes)
        if window is None:
            continue
        canvas[window] = paint(rng, canvas[window], ink)
        shapes = add_shape(shapes, ink, window)
        chosen.append(labels[index])
    return Scene(canvas.round().clip(0, 255).astype(np.uint8), shapes, np.array(chosen, np.int64))


def visible_masks(shapes: np.ndarray) -> np.ndarray:
    """Cut from each shape what later shapes cover, (N, H, W) bool to the same."""
    masks, covered = shapes.copy(), np.zeros(shapes.shape[1:], bool)
    for mask, shape in zip(masks[::-1], shapes[::-1], strict=True):
        mask &= ~covered
        covered |= shape
    return masks


def tight_boxes(masks: np.ndarray) -> np.ndarray:
    """Return the smallest boxes around masks (N, H, W), none empty: (N, 4) int64, x0, y0, x1, y1, ends excluded."""
    columns, rows = (np.asarray(masks.any(axis=axis)) for axis in (1, 2))
    ends = [columns.argmax(1), rows.argmax(1)]
    ends += [side.shape[1] - side[:, ::-1].argmax(1) for side in (columns, rows)]
    return np.stack(ends, axis=1).astype(np.int64)


def draw_digit(rng: np.random.Generator, glyph: np.ndarray, side: int, max_angle: float = MAX_ANGLE) -> np.ndarray:
    """Scale, slant and turn a glyph (8, 8) at random, for a scene with this shorter side; angle in radians.

    Returns the share of each pixel that ink covers, (h, w) float32 from 0 to 1, cropped to the ink.
    """
    height = side * math.exp(rng.uniform(*np.log(DIGIT_HEIGHT)))
    angle, shear, stretch = rng.uniform([-max_angle, -MAX_SHEAR, 0.9], [max_angle, MAX_SHEAR, 1.15])
    box = math.ceil(height * 1.6)
    # from subpixels of the output, about its centre, to pixels of the smooth glyph, whose 8 cells are 64 pixels high
    step = 64 / (height * SUPERSAMPLING)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = step * np.array([[1 / stretch, shear], [0, 1]]) @ turn
    offset = 48 - matrix @ np.full(2, box * SUPERSAMPLING / 2)
    turned = smooth_glyph(glyph).transform(
        (box * SUPERSAMPLING,) * 2,
        Image.Transform.AFFINE,
        (*matrix[0], offset[0], *matrix[1], offset[1]),
        Image.Resampling.BILINEAR,
    )
    inked = Image.fromarray((np.asarray(turned) >= INK_LEVEL) * np.uint8(255)).reduce(SUPERSAMPLING)
    ink = np.asarray(inked, np.float32) / 255
    x0, y0, x1, y1 = tight_boxes(ink[None] > 0)[0]
    return ink[y0:y1, x0:x1]


def smooth_glyph(glyph: np.ndarray) -> Image.Image:
    """Enlarge a glyph (8, 8) eight times, to 64 x 64 pixels in a margin of 16, as a float image.

    It is sharpened first, which keeps loops open and faint strokes whole when a threshold is applied.
    """
    padded = np.pad(glyph, 3)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).mean((2, 3))  # (12, 12)
    sharp = 2 * padded[1:-1, 1:-1] - around
    return Image.fromarray(sharp.astype(np.float32)).resize((96, 96), Image.Resampling.LANCZOS)


def find_window(rng: np.random.Generator, ink: np.ndarray, shapes: np.ndarray) -> tuple[slice, slice] | None:
    """Find rows and columns of the scene where ink (h, w) leaves every digit readable; None if no try succeeds.

    shapes (N, H, W) are the digits already there.
    """
    for _ in range(PLACING_TRIES):
        top, left = rng.integers(0, np.array(shapes.shape[1:]) - ink.shape + 1)
        window = slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1])
        if is_readable(add_shape(shapes, ink, window)):
            return window
    return None


def add_shape(shapes: np.ndarray, ink: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Append to shapes (N, H, W) the pixels of a window that ink (h, w) covers by half or more; (N + 1, H, W)."""
    shape = np.zeros((1, *shapes.shape[1:]), bool)
    shape[0][window] = ink >= 0.5
    return np.concatenate([shapes, shape])


def is_readable(shapes: np.ndarray) -> bool:
    """Say whether enough of every digit is visible, and the last one's box overlaps the others little enough."""
    boxes = tight_boxes(shapes)
    first, last = np.maximum(boxes[:-1, :2], boxes[-1, :2]), np.minimum(boxes[:-1, 2:], boxes[-1, 2:])
    shared = (last - first).clip(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    if (shared > MAX_BOX_OVERLAP * np.minimum(areas[:-1], areas[-1])).any():
        return False
    return bool((visible_masks(shapes).sum((1, 2)) >= MIN_VISIBLE * shapes.sum((1, 2))).all())


def paint(rng: np.random.Generator, ground: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Lay ink (h, w) of one random colour, slightly shaded, over a part of the scene (h, w, 3)."""
    colour = pick_ink(rng, ground[::2, ::2].reshape(-1, 3))  # the surroundings, neighbouring digits included
    shade = 1 + 0.12 * smooth_noise(rng, (ink.shape[0], ink.shape[1]), cells=3)[..., None]
    return ground + ink[..., None] * (colour * shade - ground)


def pick_ink(rng: np.random.Generator, surround: np.ndarray) -> np.ndarray:
    """Draw twelve random colours and return the first (3,) that stands out from most pixels (P, 3), or the best."""
    colours = np.stack([random_colour(rng, saturation=(0.2, 1), value=(0.15, 1)) for _ in range(12)])
    distances = np.sqrt(((colours[:, None] - surround) ** 2) @ np.array([0.3, 0.5, 0.2]))
    contrast = np.quantile(distances, 0.05, axis=1)
    return colours[np.argmax(np.minimum(contrast, MIN_CONTRAST))]


def random_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """Draw an RGB colour (3,), 0 - 255, of any hue, with saturation and value within the ranges."""
    return 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)))


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Draw noise (H, W), float32 of about unit variance, with ``cells`` bumps along the shorter side."""
    height, width = (max(2, round(cells * side / min(size))) for side in size)
    bumps = Image.fromarray(rng.standard_normal((height, width), dtype=np.float32))
    return np.asarray(bumps.resize(size[::-1], Image.Resampling.BICUBIC))


def draw_clutter(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a background without digits: a gradient, noise at several scales, faint blobs, long thin strokes.

    Returns (H, W, 3) float64 of about 0 - 255, not clipped.
    """
    plain = Image.fromarray(draw_texture(rng, size).clip(0, 255).astype(np.uint8))
    large = plain.resize((2 * size[1], 2 * size[0]), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(large, 'RGBA')
    draw_blobs(rng, pen, large.size)
    draw_strokes(rng, pen, large.size)
    return np.asarray(large.reduce(2), np.float64) + rng.normal(0, 2, (*size, 1))


def draw_texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a gradient between two colours under noise at scales from a few bumps to a few pixels, (H, W, 3)."""
    ends = [random_colour(rng, saturation=(0.05, 0.6), value=(0.2, 0.95)) for _ in range(2)]
    angle = rng.uniform(0, 2 * math.pi)
    rows, columns = np.linspace(-0.5, 0.5, size[0])[:, None, None], np.linspace(-0.5, 0.5, size[1])[None, :, None]
    ramp = 0.5 + 0.6 * (math.cos(angle) * columns + math.sin(angle) * rows)
    texture = ends[0] + ramp * (ends[1] - ends[0])
    for cells, strength in ((3, 16), (8, 10), (24, 7)):
        tint = strength * rng.uniform(0, 1) * rng.uniform(0.5, 1, 3)
        texture = texture + tint * smooth_noise(rng, size, cells)[..., None]
    return texture


def draw_blobs(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Draw faint filled polygons, larger than digits; size (W, H)."""
    for _ in range(rng.integers(2, 6)):
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 9)))
        reach = min(size) * rng.uniform(0.2, 0.6) * rng.uniform(0.6, 1, len(angles))
        corners = rng.uniform(0, size) + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        colour = random_colour(rng, saturation=(0.1, 0.8), value=(0.1, 1)).astype(int)
        pen.polygon([tuple(corner) for corner in corners], (*colour, int(rng.integers(30, 90))))


def draw_strokes(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Draw specks, and curves from edge to edge that are thinner and longer than those of digits; size (W, H)."""
    along = np.linspace(0, 1, 24)[:, None]
    for _ in range(rng.integers(2, 9)):
        start, bend, end = rng.uniform(-0.3, 1.3, (3, 2)) * size
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
        colour = random_colour(rng, saturation=(0, 0.9), value=(0.05, 1)).astype(int)
        width = max(1, round(min(size) * rng.uniform(0.004, 0.02)))
        pen.line([tuple(point) for point in curve], (*colour, int(rng.integers(90, 230))), width, joint='curve')
    for centre in rng.uniform(0, 1, (rng.integers(0, 25), 2)) * size:
        radius = min(size) * rng.uniform(0.004, 0.014)
        colour = random_colour(rng, saturation=(0, 0.9), value=(0.05, 1)).astype(int)
        pen.ellipse([*(centre - radius), *(centre + radius)], (*colour, 200))
