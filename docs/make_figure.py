"""Draw docs/images/idea.png, the figure of the README: windows that fit the grid, and a block that rotates q and k."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from mmrope.analysis.plotting import COLOURS, GREY
from mmrope.layers.windows import even_windows

OUT = Path(__file__).parent / 'images' / 'idea.png'
WIDTH, HEIGHT = 830, 452  # pixels of the README's column; one unit of the axes is one pixel
BLUE, VERMILION, *_ = COLOURS
LIGHT, DARK, GREEN, INK = '#cfe3f1', '#8fbfe0', '#007a59', '#222222'
TOKENS, WINDOW = 64, 14
TOKEN, GAP = 4.7, 5.0  # width of a token, and between windows
SIZES = [span.size for span in even_windows((TOKENS, TOKENS), WINDOW).rows for _ in range(span.number)]


def text(axis: Axes, x: float, y: float, words: str, size: float = 9.5, **options) -> None:
    """Write words, centred on (x, y) unless options say otherwise."""
    axis.text(x, y, words, **{'fontsize': size, 'ha': 'center', 'va': 'center', 'color': INK, **options})


def arrow(axis: Axes, *points: tuple[float, float], colour: str = INK) -> None:
    """Draw a line through points, with a head at the last one."""
    for start, end in zip(points[:-2], points[1:-1], strict=True):
        axis.plot(*zip(start, end, strict=True), color=colour, linewidth=1.3, solid_capstyle='round')
    head = dict(arrowstyle='-|>', mutation_scale=9, linewidth=1.3, shrinkA=0, shrinkB=0, color=colour)
    axis.add_patch(FancyArrowPatch(points[-2], points[-1], **head))


def box(axis: Axes, x: float, y: float, width: float, height: float, words: str, colour: str = INK) -> None:
    """Draw a named step of the block around its lower left corner (x, y)."""
    style = dict(boxstyle='round,pad=0,rounding_size=6', facecolor='white', edgecolor=colour, linewidth=1.5)
    axis.add_patch(FancyBboxPatch((x, y), width, height, **style))
    text(axis, x + width / 2, y + height / 2, words, linespacing=1.35)


def draw_row(axis: Axes, x: float, y: float, windows: list[tuple[int, int]]) -> None:
    """Draw a row of tokens, window by window, each given by its numbers of tokens and of padding."""
    for i, (tokens, padding) in enumerate(windows):
        for k in range(tokens + padding):
            look = dict(facecolor=(LIGHT, DARK)[i % 2], edgecolor='white', linewidth=0.6)
            if k >= tokens:
                look = dict(facecolor='white', edgecolor=VERMILION, linewidth=0.7, hatch='//////')
            axis.add_patch(Rectangle((x + k * TOKEN, y), TOKEN, 24, **look))
        text(axis, x + tokens * TOKEN / 2, y - 11, str(tokens))
        if padding:
            text(axis, x + (tokens + padding / 2) * TOKEN, y - 11, f'+ {padding}', color=VERMILION)
        width = (tokens + padding) * TOKEN
        axis.add_patch(Rectangle((x, y), width, 24, fill=False, edgecolor=BLUE, linewidth=1.1))
        x += width + GAP


def draw_grid(axis: Axes, x: float, y: float, gap: float) -> None:
    """Draw the windows of the whole grid, a pixel a token, with a gap between them."""
    for row, height in enumerate(SIZES):
        for col, width in enumerate(SIZES):
            corner = x + sum(SIZES[:col]) + gap * col, y + sum(SIZES[row + 1 :]) + gap * (len(SIZES) - 1 - row)
            look = dict(facecolor=(LIGHT, DARK)[(row + col) % 2], edgecolor=BLUE, linewidth=0.7)
            axis.add_patch(Rectangle(corner, width, height, **look))


def draw_windows(axis: Axes) -> None:
    """Draw the upper half: how a row of tokens is cut."""
    left, right, top = 18, 440, HEIGHT - 20
    text(axis, left, top, 'Windows padded to a multiple of 14', 11, weight='bold', ha='left')
    text(axis, right, top, 'mmrope: windows that fit the grid', 11, weight='bold', ha='left')
    draw_row(axis, left, top - 52, [*[(WINDOW, 0)] * 4, (8, 6)])
    draw_row(axis, right, top - 52, [(size, 0) for size in SIZES])
    padded = 1 - TOKENS**2 / 70**2
    text(axis, left, top - 88, '64 tokens become 70: padding is attended to, or masked.', ha='left')
    text(axis, left, top - 105, f'A 64 × 64 grid becomes 70 × 70: {padded:.0%} is padding.', ha='left', color=VERMILION)
    text(axis, right, top - 88, '64 tokens stay 64, in windows of at most 14.', ha='left')
    text(axis, right, top - 105, 'No padding, no masks, any H × W.', ha='left', color=BLUE)


def draw_block(axis: Axes) -> None:
    """Draw the lower half: the attention of a block, from left to right."""
    text(axis, 18, 284, 'Attention in a block', 11, weight='bold', ha='left')
    q, k, v = 112, 84, 56
    draw_grid(axis, 34, k - 32, 0)
    text(axis, 66, k - 44, 'W', style='italic')
    text(axis, 25, k, 'H', style='italic')
    text(axis, 66, k + 46, 'tokens')
    arrow(axis, (104, k), (138, k))
    box(axis, 140, 42, 82, 84, 'project')
    for name, y in zip('qkv', (q, k, v), strict=True):
        text(axis, 238, y + 9, name, style='italic')
    arrow(axis, (223, q), (290, q))
    arrow(axis, (223, k), (290, k))
    arrow(axis, (223, v), (502, v))
    box(axis, 292, 70, 118, 56, 'rotate q and k', GREEN)
    arrow(axis, (411, q), (502, q))
    arrow(axis, (411, k), (502, k))

    box(axis, 262, 184, 186, 62, 'cos and sin of the angles\nposition × frequency', GREEN)
    arrow(axis, (351, 183), (351, 128), colour=GREEN)
    text(axis, 361, 156, 'made for this H × W, in every forward', ha='left', color=GREEN)
    arrow(axis, (74, 230), (260, 230), colour=GREY)
    text(axis, 74, 239, 'frequencies, learned or fixed', 9, ha='left', color=GREY)
    arrow(axis, (66, k + 56), (66, 200), (260, 200), colour=GREY)
    text(axis, 74, 209, 'height and width of the grid', 9, ha='left', color=GREY)
    text(axis, 464, 224, 'A checkpoint holds frequencies and no table.', ha='left')
    text(axis, 464, 206, 'Another H × W: other angles, nothing interpolated.', ha='left')

    box(axis, 504, 28, 138, 112, '')
    draw_grid(axis, 535, 57, 3)
    text(axis, 573, 42, 'attend in windows')
    arrow(axis, (643, k), (676, k))
    box(axis, 678, 56, 64, 56, 'project')
    arrow(axis, (743, k), (780, k))
    text(axis, 800, k, 'out')


def main() -> None:
    """Draw the figure."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor='white')
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axis.axis('off')
    draw_windows(axis)
    axis.plot([18, WIDTH - 18], [308, 308], color='#cccccc', linewidth=0.8)
    draw_block(axis)
    figure.savefig(OUT, dpi=200, metadata={'Software': None})


if __name__ == '__main__':
    main()
