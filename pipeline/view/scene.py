"""What is shown: the layers that are compared, the tiers of the tiles, and what is told of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.output.pictures.tile_maps import TileMap
from tierscale.pipeline.view.layers import Layer

# Side of the tiles that the page loads, in pixels, and how many are kept.
TILE, KEPT = 512, 256
JPEG_QUALITY = 90
# Pixels on a side of a tile in the map of tiers, at most; the map itself has at most MAP of them.
MAP_TILE, MAP = 16, 4096


@dataclass(frozen=True, slots=True)
class Named:
    """A layer with its name on the page."""

    name: str
    layer: Layer


@dataclass(frozen=True, slots=True)
class Tiers:
    """Which tier made which tile. figures: of every tile, by name: numbers (rows, columns) with
    their unit, NaN where one is not known; side: of a tile in pixels of the result.
    """

    tiles: TileMap
    side: float
    figures: Mapping[str, tuple[np.ndarray, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """All that the page shows.

    title: of the page. sizes: height and width of each pyramid level, the largest first. result: in
    front; opponents: what it is compared with, at least one where there is a source. scale: source
    pixels become so many pixels of the result. pixel: length of a pixel of the result and its unit,
    or None. facts: names and texts. alpha: whether pixels may be clear.
    """

    title: str
    sizes: Sequence[tuple[int, int]]
    result: Named
    opponents: Sequence[Named]
    scale: float
    tiers: Tiers | None = None
    pixel: tuple[float, str] | None = None
    facts: Sequence[tuple[str, str]] = ()
    alpha: bool = False
    _lock: Lock = field(default_factory=Lock)

    @cached_property
    def picture(self) -> Callable[[int, int, int, int, bool], bytes]:
        """picture(layer, level, row, column, exact): a tile, kept; a PNG where it is exact."""
        return lru_cache(KEPT)(self._picture)

    @property
    def layers(self) -> list[Named]:
        """The result, then its opponents, as tiles are numbered."""
        return [self.result, *self.opponents]

    def tiles(self, level: int) -> tuple[int, int]:
        """Rows and columns of the tiles of a level."""
        height, width = self.sizes[level]
        return -(-height // TILE), -(-width // TILE)

    def has(self, layer: int, level: int, row: int, column: int) -> bool:
        """Whether there is such a tile."""
        if layer >= len(self.layers) or level >= len(self.sizes):
            return False
        rows, columns = self.tiles(level)
        return row < rows and column < columns

    def _picture(self, layer: int, level: int, row: int, column: int, exact: bool) -> bytes:
        """A tile as a JPEG, or as a PNG where it is `exact` or may be clear."""
        height, width = self.sizes[level]
        y, x = row * TILE, column * TILE
        rect = Rect(Span(y, min(y + TILE, height)), Span(x, min(x + TILE, width)))
        with self._lock:  # sources are read by one at a time
            pixels = self.layers[layer].layer.window(level, rect)
        return encoded(pixels, exact or self.alpha)

    def map(self) -> bytes:
        """The tiers of all tiles as a PNG, a square for each. ValueError: they are not known."""
        tiles = self.tiles_map
        side = max(1, min(MAP_TILE, MAP // max(tiles.routes.shape)))
        colours = tiles.tints.astype(np.uint8)[tiles.routes]
        return encoded(np.repeat(np.repeat(colours, side, axis=0), side, axis=1), True)

    @property
    def tiles_map(self) -> TileMap:
        """The tiers of all tiles. ValueError: they are not known."""
        return self._known_tiers().tiles

    def about(self) -> dict[str, Any]:
        """What the page must know to begin."""
        return {
            "title": self.title,
            "tile": TILE,
            "sizes": [[width, height] for height, width in self.sizes],
            "layers": [named.name for named in self.layers],
            "suffix": "png" if self.alpha else "jpg",
            "scale": self.scale,
            "pixel": self.pixel,
            "facts": [list(fact) for fact in self.facts],
            "tiers": self._about_tiers(),
        }

    def _about_tiers(self) -> dict[str, Any] | None:
        if self.tiers is None:
            return None
        tiles = self.tiers.tiles
        rows, columns = tiles.routes.shape
        return {
            "side": self.tiers.side,
            "rows": rows,
            "columns": columns,
            "labels": list(tiles.labels),
            "tiles": [tiles.count(tier) for tier in range(len(tiles.labels))],
            "tints": ["#{:02x}{:02x}{:02x}".format(*map(int, tint)) for tint in tiles.tints],
            "figures": [[name, unit] for name, (_, unit) in self.tiers.figures.items()],
        }

    def row(self, row: int) -> dict[str, Any]:
        """Tier and figures of the tiles of one row. ValueError: they are not known."""
        known = self._known_tiers()
        numbers = [
            [None if np.isnan(value) else float(f"{value:.4g}") for value in values[row].tolist()]
            for values, _ in known.figures.values()
        ]
        return {"row": row, "tiers": known.tiles.routes[row].tolist(), "figures": numbers}

    def _known_tiers(self) -> Tiers:
        if self.tiers is None:
            raise ValueError("no tiers are known of this picture")
        return self.tiers


def encoded(pixels: np.ndarray, exact: bool) -> bytes:
    """Pixels as a PNG where it is `exact`, else as a JPEG without subsampling."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if exact:
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def script(function: str, value: Any) -> bytes:
    """A call of a function of the page with a value: what a page may load from a folder too.

    "<" is escaped, although a script that is loaded is not read as markup.
    """
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f"{function}({text});\n".encode()
