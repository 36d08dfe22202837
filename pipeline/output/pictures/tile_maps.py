"""Maps of what happened to each tile, as tints over the preview; of bounded size for any image."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tierscale.pipeline.output.levels import SMALLEST_LEVEL
from tierscale.pipeline.plan.plan import Plan

# From calm to loud: light tiers are cold, full ones warm.
TINTS = ((59, 91, 165), (66, 168, 137), (240, 168, 48), (214, 66, 60), (140, 60, 160), (90, 90, 90))
# A map is enlarged until it is this wide, in pixels, unless that makes it too tall.
WIDTH = 480
# A side that is shorter than this is stretched alone: a map one pixel wide shows nothing.
SHORTEST_SIDE = 32
# From easy to hard: dark blue, green, yellow, as in most maps of heights.
RAMP = np.array(
    ((48, 18, 92), (54, 92, 141), (39, 146, 134), (115, 208, 85), (253, 231, 37)), np.float32
)
# How far light and shade of the picture change a tint, 0..1.
RELIEF = 0.7


@dataclass(frozen=True, slots=True)
class TileMap:
    """The tier of every tile of an image.

    labels: of the tiers, light to full. routes: tier index of every tile, (rows, columns). size:
    height and width of the image, tile: side of a tile; both in input pixels.
    """

    labels: tuple[str, ...]
    routes: np.ndarray
    size: tuple[int, int]
    tile: int

    @classmethod
    def of(cls, plan: Plan) -> "TileMap":
        """The tiers of a plan."""
        labels = tuple(tier.label for tier in plan.tiers)
        return cls(labels, plan.routes, plan.grid.size, plan.tile)

    @property
    def tints(self) -> np.ndarray:
        """A colour for each tier, (tiers, 3): blue for the lightest, red for the full of a few."""
        few = {1: [1], 2: [0, 3], 3: [0, 2, 3], 4: [0, 1, 2, 3]}
        indices = few.get(len(self.labels), range(len(self.labels)))
        return np.array([TINTS[index % len(TINTS)] for index in indices], np.float32)

    def tiles_at(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The tile row of each pixel row and tile column of each pixel column of a map."""
        rows, columns = (
            np.minimum(
                ((np.arange(length) + 0.5) / length * whole // self.tile).astype(int), count - 1
            )
            for length, whole, count in zip(
                (height, width), self.size, self.routes.shape, strict=True
            )
        )
        return rows, columns

    def count(self, tier: int) -> int:
        """Number of tiles of a tier."""
        return int((self.routes == tier).sum())


@dataclass(frozen=True, slots=True)
class DifficultyMap:
    """How hard every tile is.

    values: squared error, 0..1, that the full tier is predicted to save over the lightest, (rows,
    columns). scoring: what the values are: "errors", "order" (they only rank tiles) or "none".
    """

    values: np.ndarray
    scoring: Literal["errors", "order", "none"]

    @classmethod
    def of(cls, plan: Plan, values: np.ndarray) -> "DifficultyMap":
        """How hard the tiles of a plan are."""
        if plan.scoring == "none":
            return cls(values, "none")
        return cls(values, "errors" if plan.knows_errors else "order")

    @property
    def grey(self) -> np.ndarray:
        """The root of the values, in grey values of 255, the scale on which people see."""
        return 255 * np.sqrt(np.maximum(self.values, 0.0))

    @property
    def high(self) -> float:
        """What has the colour of the hardest tiles, in grey values.

        A difficulty below one grey value is hard for nobody: an image that is easy all over
        has the colour of easy tiles.
        """
        return max(float(self.grey.max()), 1.0 if self.scoring == "errors" else 1e-3)

    @property
    def unit(self) -> str:
        """What the colours stand for."""
        if self.scoring == "errors":
            return "error that the full tier is predicted to save, grey values of 255"
        return "how much a network changes the tile: it only ranks tiles, grey values of 255"

    def colours(self, tiles: TileMap, height: int, width: int) -> np.ndarray:
        """The colour of every pixel of a map, (height, width, 3); white: nothing was scored."""
        if self.scoring == "none":
            return np.full((height, width, 3), 255.0)
        rows, columns = tiles.tiles_at(height, width)
        return ramp(self.grey / self.high)[rows][:, columns]


def base_picture(picture: Image.Image) -> np.ndarray:
    """What maps are drawn on: the picture in grey, (h, w) float32, 0..255.

    It is enlarged to WIDTH where it is narrower, as far as its height allows. Each side has
    SHORTEST_SIDE to SMALLEST_LEVEL pixels if the picture has no longer ones: memory is bounded for
    any shape, also where the sides of an image differ by a factor of thousands.
    """
    room = min(WIDTH / picture.width, SMALLEST_LEVEL / picture.height)
    factor = max(1.0, room)
    size = tuple(max(SHORTEST_SIDE, round(side * factor)) for side in picture.size)
    grey = picture.convert("RGBA").convert("L")
    return np.asarray(grey if grey.size == size else grey.resize((size[0], size[1])), np.float32)


def tinted(base: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A grey picture (h, w), 0..255, as light and shade of colours (h, w, 3); (h, w, 3) uint8.

    Middle grey leaves a colour as it is, so that the map has the colours of its legend.
    """
    light = (base[..., None] / 255 - 0.5) * RELIEF
    mixed = np.where(light > 0, colours + (255 - colours) * light, colours * (1 + light))
    return np.clip(mixed, 0, 255).astype(np.uint8)


def tier_tints(base: np.ndarray, tiles: TileMap) -> np.ndarray:
    """The tier of every tile as a tint over the grey picture `base` (h, w); (h, w, 3) uint8."""
    rows, columns = tiles.tiles_at(*base.shape)
    index = tiles.routes[rows][:, columns]
    mixed = tinted(base, tiles.tints[index])
    # A thin darker line where the tier changes shows single tiles without hiding the picture.
    edge = np.zeros(index.shape, bool)
    edge[1:] |= index[1:] != index[:-1]
    edge[:, 1:] |= index[:, 1:] != index[:, :-1]
    mixed[edge] = (0.6 * mixed[edge]).astype(np.uint8)
    return mixed


def ramp(values: np.ndarray) -> np.ndarray:
    """Colours (…, 3) of values 0..1, as in RAMP."""
    at = np.clip(values, 0, 1) * (len(RAMP) - 1)
    return np.stack(
        [np.interp(at, np.arange(len(RAMP)), RAMP[:, channel]) for channel in range(3)], axis=-1
    )


def routing_map(picture: Image.Image, tiles: TileMap) -> Image.Image:
    """The tier of every tile as a tint over the picture, with a legend below."""
    return _with_legend(Image.fromarray(tier_tints(base_picture(picture), tiles)), tiles)


def _with_legend(picture: Image.Image, tiles: TileMap) -> Image.Image:
    """A map with a line of the legend for each tier below it."""
    line, font = 26, ImageFont.load_default(16)
    lines = [
        f"{label}: {tiles.count(tier)} of {tiles.routes.size} tiles"
        f" ({tiles.count(tier) / tiles.routes.size:.0%})"
        for tier, label in enumerate(tiles.labels)
    ]
    widest = int(max(font.getlength(text) for text in lines)) + 48
    size = max(picture.width, widest), picture.height + 12 + line * len(lines)
    sheet = Image.new("RGB", size, "white")
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for tier, text in enumerate(lines):
        top = picture.height + 8 + line * tier
        colour = tuple(int(part) for part in tiles.tints[tier])
        pen.rectangle((10, top + 3, 28, top + 19), fill=colour)
        pen.text((38, top), text, fill="black", font=font)
    return sheet
