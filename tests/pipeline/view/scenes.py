"""A small scene: an output with a source, and a server of it."""

import contextlib
import threading
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import zarr

from tierscale.pipeline.output.levels import level_sizes
from tierscale.pipeline.output.pictures.tile_maps import TileMap
from tierscale.pipeline.view import server
from tierscale.pipeline.view.colours import Screen
from tierscale.pipeline.view.layers import Original, Stored
from tierscale.pipeline.view.scene import Named, Scene, Tiers

SCREEN = Screen.plain(np.dtype(np.uint8), 3, "rgb", None)


def scene(height=150, width=200, alpha=False, **changed) -> Scene:
    """A source of noise, and a result that is its negative, four times as large."""
    screen = Screen.plain(np.dtype(np.uint8), 4, "rgba", "straight") if alpha else SCREEN
    channels = 4 if alpha else 3
    source = np.random.default_rng(1).integers(0, 256, (channels, height, width), np.uint8)
    sizes = level_sizes((4 * height, 4 * width))
    full = 255 - source.repeat(4, axis=1).repeat(4, axis=2)
    levels = [zarr.array(full[:, :: 2**at, :: 2**at][:, :y, :x]) for at, (y, x) in enumerate(sizes)]

    def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return source[:, y0:y1, x0:x1]

    original = Original(read, (height, width), Fraction(4), False, screen)
    routes = np.arange(12).reshape(3, 4) % 2
    figures = {"took": (np.where(routes, np.nan, routes + 1.5), " ms")}
    tiers = Tiers(TileMap(("light", "full"), routes, (height, width), 50), 200.0, figures)
    given = {"tiers": tiers, "facts": [("note", "</script><b>")], "alpha": alpha, **changed}
    return Scene(
        "a <b>.zarr",
        sizes,
        Named("result", Stored("a.zarr", levels, screen)),
        [Named("source pixels", original)],
        4.0,
        **given,
    )


@contextlib.contextmanager
def served(shown: Scene) -> Iterator[str]:
    """The address of a page that is served in the meantime."""
    listening, address = server.listen(shown)
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield address
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
