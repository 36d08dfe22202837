"""Charts with axes, drawn by matplotlib: the curve of a plan, and the maps that explain an output.

matplotlib takes half a second to import, so it is imported where something is drawn; workers draw
nothing here. Its global state (pyplot) is not used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tierscale.pipeline.output.pictures.tile_maps import (
    DifficultyMap,
    TileMap,
    base_picture,
    ramp,
    tier_tints,
    tinted,
)
from tierscale.pipeline.storage.path_policy import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Dots per inch of all charts.
DPI = 120
# Inches of the curve.
CURVE_SIZE = (8.0, 5.0)
# Inches of one map: its width beside or above the other one, and the space for title and axes.
MAP_WIDTH, STACKED_WIDTH, MAP_MARGIN = 5.4, 9.0, 1.5
# Height over width of a map: beyond these, its axes have different units, or nothing could be read.
FLATTEST, TALLEST = 0.12, 2.0
# Maps of images that are wider than high by this factor are drawn one above the other.
WIDE = 1.6


@contextmanager
def _drawing() -> Iterator[Callable[[float, float], Figure]]:
    """A function that makes a figure (width, height in inches), with text as users wrote it.

    Names come from strangers: a dollar sign in one starts no formula, and a letter that the font
    lacks is drawn as a box without a warning.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with (
        matplotlib.rc_context({"text.parse_math": False, "axes.titlesize": 11}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        yield lambda width, height: Figure(
            figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white"
        )


def _rendered(figure: Figure) -> Image.Image:
    """The pixels of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def curve_chart(
    name: str, curve: Sequence[tuple[float, float]], planned: tuple[float, float]
) -> Image.Image:
    """The predicted loss of an image at each cost, and where its plan lies.

    name: of the image. curve, planned: cost as a share of the full tier everywhere, 0..1, and the
    loss against that in dB.
    """
    with _drawing() as new_figure:
        figure = new_figure(*CURVE_SIZE)
        axes = figure.subplots()
        axes.plot(
            [100 * share for share, _ in curve],
            [-loss for _, loss in curve],
            color="#3b5ba5",
            linewidth=2.5,
            marker="o",
            markersize=4,
            label="best route for a budget",
        )
        share, loss = 100 * planned[0], planned[1]
        axes.plot(
            [share],
            [-loss],
            color="#d6423c",
            linestyle="none",
            marker="o",
            markersize=9,
            label=f"this plan: {share:.0f}% of the cost, {-loss:+.3f} dB",
        )
        axes.set_title(f"Predicted quality of {printable(name)} by cost")
        axes.set_xlabel("cost: multiply-adds, % of the full tier on every tile")
        axes.set_ylabel("predicted PSNR against\nthe full tier on every tile, dB")
        axes.set_xlim(left=0)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.grid(color="#e0e0e0")
        axes.set_axisbelow(True)
        axes.legend(loc="lower right")
        return _rendered(figure)


def tile_charts(picture: Image.Image, tiles: TileMap, difficulty: DifficultyMap) -> Image.Image:
    """The map of tiers and, beside or below it, of the difficulty of the tiles, over the picture.

    picture: of the output, at any size.
    """
    base = base_picture(picture)
    height, width = tiles.size
    ratio = float(np.clip(height / width, FLATTEST, TALLEST))
    with _drawing() as new_figure:
        if width > WIDE * height:
            figure = new_figure(STACKED_WIDTH, 2 * (STACKED_WIDTH * 0.9 * ratio + MAP_MARGIN))
            first, second = figure.subfigures(2, 1, squeeze=False).flat
        else:
            figure = new_figure(2 * MAP_WIDTH, 0.9 * MAP_WIDTH * ratio + MAP_MARGIN)
            first, second = figure.subfigures(1, 2, squeeze=False).flat
        _show(first.subplots(), tier_tints(base, tiles), tiles.size, "Tier of each tile")
        _tier_legend(first, tiles)
        shades = tinted(base, difficulty.colours(tiles, *base.shape))
        _show(second.subplots(), shades, tiles.size, "Difficulty of each tile")
        _difficulty_legend(second, difficulty)
        return _rendered(figure)


def _show(axes: Axes, pixels: np.ndarray, size: tuple[int, int], title: str) -> None:
    """A map with axes in pixels of the input, whose height and width are `size`."""
    height, width = size
    distorted = not FLATTEST <= height / width <= TALLEST
    axes.imshow(
        pixels,
        extent=(0, width, height, 0),
        aspect="auto" if distorted else "equal",
        interpolation="nearest",
    )
    axes.set_title(title)
    axes.set_xlabel("x, input pixels" + (" (not to the scale of y)" if distorted else ""))
    axes.set_ylabel("y, input pixels")
    axes.set_anchor("N")
    axes.locator_params(nbins=6, integer=True)


def _tier_legend(part: SubFigure, tiles: TileMap) -> None:
    """Colour, label and share of every tier, below a map."""
    from matplotlib.patches import Patch

    patches = [
        Patch(
            color=tuple(tiles.tints[tier] / 255),
            label=f"{printable(label)}: {tiles.count(tier)} of {tiles.routes.size} tiles"
            f" ({tiles.count(tier) / tiles.routes.size:.0%})",
        )
        for tier, label in enumerate(tiles.labels)
    ]
    part.legend(handles=patches, loc="outside lower center", frameon=False)


def _difficulty_legend(part: SubFigure, difficulty: DifficultyMap) -> None:
    """The colours of RAMP with their unit, below a map; one sentence where nothing was scored."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if difficulty.scoring == "none":
        part.supxlabel("not scored: the policy gives all tiles the same tier", fontsize=10)
        return
    shades = ListedColormap(ramp(np.linspace(0, 1, 256)) / 255)
    bar = part.colorbar(
        ScalarMappable(Normalize(0, difficulty.high), shades),
        ax=part.axes,
        location="bottom",
        fraction=0.06,
        aspect=35,
    )
    bar.set_label(difficulty.unit)
