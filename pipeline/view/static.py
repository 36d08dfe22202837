"""A scene as a folder with one page, which opens without any server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tierscale.pipeline.output.export.common import whole_folder
from tierscale.pipeline.view.scene import Scene
from tierscale.pipeline.view.server import FILES, content


def names(scene: Scene) -> Iterator[str]:
    """All that the page loads."""
    yield from (name for name in FILES if name)
    yield "info.js"
    if scene.tiers is not None:
        yield "tiers.png"
        yield from (f"row/{row}.js" for row in range(len(scene.tiles_map.routes)))
    suffix = scene.about()["suffix"]
    for layer in range(len(scene.layers)):
        for level in range(len(scene.sizes)):
            rows, columns = scene.tiles(level)
            for row in range(rows):
                for column in range(columns):
                    yield f"tile/{layer}/{level}/{column}_{row}.{suffix}"


def write(scene: Scene, folder: str, progress: Callable[[int, int], None]) -> None:
    """Write the page and all that it loads into a folder that is not there yet.

    progress: (files written, all). Refused: the folder cannot be made.
    """
    with whole_folder(folder) as temporary:
        asked = ["", *names(scene)]
        for done, name in enumerate(asked, start=1):
            found = content(scene, name)
            if found is None:
                raise ValueError(f"the page has no {name}")
            file = Path(temporary, name or "index.html")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(found[1])
            progress(done, len(asked))
