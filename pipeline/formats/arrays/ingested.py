"""Ingested copies as sources: what `ingest` made of files that cannot be read by windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.arrays.array import ArrayPixels
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.storage.paths import Place, place

# Attribute under which an ingested copy keeps what its source said.
INGESTED = "tierscale_source"
# zarr decodes up to this many chunks at once (async.concurrency).
AT_ONCE = 10


def reopened(uri: str, array: Any, kept: Mapping[str, Any]) -> Source:
    """The source of which `array` is an ingested copy."""
    if not kept.get("complete"):
        raise Damaged(f"{uri}: this copy of a source was not finished; ingest it again")
    pixels = CopyPixels(array, "cyx", {}, place(uri) / "zarr.json")
    needed = 2 * AT_ONCE * math.prod(array.chunks) * array.dtype.itemsize
    return Source(
        uri=uri,
        shape=pixels.shape,
        dtype=pixels.dtype,
        colour=kept["colour"],
        alpha=kept["alpha"],
        bits=kept["bits"],
        random_access=True,
        decode_bytes=needed,
        identify=lambda: dict(kept["identity"]),
        facts=PhotoMetadata.from_json(kept["facts"]),
        notes=tuple(kept["notes"]),
        pixels=pixels,
    )


@dataclass(slots=True)
class CopyPixels(ArrayPixels):
    """Pixels of an ingested copy, which is taken away when its image is done: chunks that are
    missing by then would read as black.

    file: metadata of the copy, which goes first.
    """

    file: Place
    text: str = field(init=False)

    def __post_init__(self) -> None:
        ArrayPixels.__post_init__(self)
        self.text = self.file.read_text()

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window. Damaged: the copy is not there any more."""
        before = self._mark()
        block = ArrayPixels.read(self, y0, y1, x0, x1)
        if before is None or self._mark() != before:
            raise Damaged(
                f"{self.file.parent} was taken away by another run while it was read; give the same"
                " command again"
            )
        return block

    def _mark(self) -> tuple[float, ...] | None:
        """What a copy that is made anew does not share with this one; None: there is no whole copy
        of the same source.
        """
        try:
            found = self.file.stat()
            return (
                (found.st_ino, found.st_mtime, found.st_size)
                if self.file.read_text() == self.text
                else None
            )
        except FileNotFoundError:
            return None
