"""A plain chart of lines and points as a picture: enough for a curve beside an image, without a
plotting library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 600)
# Left, top, right, bottom margins in pixels.
MARGINS = (90, 72, 30, 64)
INK, GRID = (40, 40, 40), (224, 224, 224)
COLOURS = (
    (59, 91, 165),
    (214, 66, 60),
    (66, 168, 137),
    (240, 168, 48),
    (140, 60, 160),
    (90, 90, 90),
    (150, 110, 70),
)

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. points: (x, y), joined in their order. dots: points stand alone, each
    with a text of `names` or none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    names: Sequence[str] = ()


def chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Image.Image:
    """Lines over common axes, with a legend where there is more than one. At least one point."""
    sheet = Image.new("RGB", SIZE, "white")
    draw, font, small = (
        ImageDraw.Draw(sheet),
        ImageFont.load_default(18),
        ImageFont.load_default(14),
    )
    left, top, right, bottom = MARGINS[0], MARGINS[1], SIZE[0] - MARGINS[2], SIZE[1] - MARGINS[3]
    xs, ys = (ticks([point[axis] for line in lines for point in line.points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (x - xs[0]) / (xs[-1] - xs[0]) * (right - left), bottom - (y - ys[0]) / (
            ys[-1] - ys[0]
        ) * (bottom - top)

    draw.text((12, 10), title, fill=INK, font=font)
    for x in xs:
        at = place(x, ys[0])[0]
        draw.line((at, top, at, bottom), fill=GRID)
        draw.text((at, bottom + 8), f"{x:g}", fill=INK, font=small, anchor="ma")
    for y in ys:
        at = place(xs[0], y)[1]
        draw.line((left, at, right, at), fill=GRID)
        draw.text((left - 8, at), f"{y:g}", fill=INK, font=small, anchor="rm")
    draw.text(((left + right) / 2, SIZE[1] - 26), x_label, fill=INK, font=small, anchor="ma")
    draw.text((12, top - 30), y_label, fill=INK, font=small)
    # The legend goes first: no line may vanish below it.
    if len(lines) > 1:
        _legend(draw, [line.name for line in lines], (right, bottom), small)
    for index, line in enumerate(lines):
        _draw(
            draw,
            [place(*point) for point in line.points],
            line,
            COLOURS[index % len(COLOURS)],
            small,
        )
    return sheet


def _draw(
    draw: ImageDraw.ImageDraw,
    places: list[tuple[float, float]],
    line: Line,
    colour: tuple[int, int, int],
    font: Font,
) -> None:
    if not line.dots:
        draw.line(places, fill=colour, width=3, joint="curve")
    for index, (x, y) in enumerate(places):
        size = 6 if line.dots else 3
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        if index < len(line.names):
            left_side = x > SIZE[0] * 0.75
            draw.text(
                (x - 10 if left_side else x + 10, y + 12),
                line.names[index],
                fill=colour,
                font=font,
                anchor="rm" if left_side else "lm",
            )


def _legend(
    draw: ImageDraw.ImageDraw, names: Sequence[str], corner: tuple[int, int], font: Font
) -> None:
    """Names of the lines in the lower right corner of the chart."""
    wide = max(draw.textlength(name, font=font) for name in names) + 40
    x, y = corner[0] - wide - 12, corner[1] - 22 * len(names) - 14
    draw.rectangle((x, y, corner[0] - 12, corner[1] - 10), fill="white", outline=GRID)
    for index, name in enumerate(names):
        at = y + 14 + 22 * index
        draw.line((x + 8, at, x + 28, at), fill=COLOURS[index % len(COLOURS)], width=4)
        draw.text((x + 34, at), name, fill=INK, font=font, anchor="lm")


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, evenly spaced, from below the smallest value to above the largest; between 3
    and 12 of them.
    """
    low, high = min(values), max(values)
    room = max(high - low, abs(high) * 1e-3, 1e-9)
    step = 10 ** floor(log10(room))
    step *= next(part for part in (0.1, 0.2, 0.5, 1, 2) if room / (step * part) <= 8)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, max(last, first + 1) + 1)]
