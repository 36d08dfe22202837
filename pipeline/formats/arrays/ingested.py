"""Ingested copies as sources: what `ingest` made of files that cannot be read by windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy import ndarray

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.arrays.array import AT_ONCE, ArrayPixels
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Samples, Source
from tierscale.pipeline.storage.paths import Place, place

# Attribute under which an ingested copy keeps what its source said.
INGESTED = "tierscale_source"


def copy_attributes(source: Source) -> dict[str, Any]:
    """What a copy remembers of its source, in the types of JSON."""
    return {
        "colour": source.colour,
        "alpha": source.alpha,
        "bits": source.bits,
        "facts": source.metadata.to_json(),  # the name in copies that version 0.1 made
        "notes": list(source.notes),
        "identity": source.identity,
    }


def open_copy(uri: str, array: Any, stored: Mapping[str, Any]) -> Source:
    """The source of which `array` is an ingested copy; stored: its `copy_attributes`.

    Damaged: the copy was not finished.
    """
    if not stored.get("complete"):
        raise Damaged(f"{uri}: this copy of a source was not finished; ingest it again")
    pixels = CopyPixels(array, "cyx", {}, place(uri) / "zarr.json")
    return Source(
        uri=uri,
        pixels=pixels,
        samples=Samples(stored["colour"], stored["alpha"], stored["bits"]),
        metadata=PhotoMetadata.from_json(stored["facts"]),
        random_access=True,
        decode_bytes=2 * AT_ONCE * math.prod(array.chunks) * array.dtype.itemsize,
        notes=tuple(stored["notes"]),
        identify=lambda: dict(stored["identity"]),
    )


@dataclass(slots=True)
class CopyPixels(ArrayPixels):
    """Pixels of an ingested copy, which another run may remove while it is read.

    Chunks that are missing by then would read as black. file: metadata of the copy, which is
    removed first.
    """

    file: Place
    text: str = field(init=False)

    def __post_init__(self) -> None:
        ArrayPixels.__post_init__(self)
        self.text = self.file.read_text()

    def read(self, y0: int, y1: int, x0: int, x1: int) -> ndarray:
        """A window. Damaged: the copy was removed or replaced."""
        before = self._version()
        block = ArrayPixels.read(self, y0, y1, x0, x1)
        if before is None or self._version() != before:
            raise Damaged(
                f"{self.file.parent} was removed by another run while it was read; run the same"
                " command again"
            )
        return block

    def _version(self) -> tuple[float, ...] | None:
        """What a copy that is made anew does not share with this one.

        None: there is no whole copy of the same source.
        """
        try:
            stat = self.file.stat()
            return (
                (stat.st_ino, stat.st_mtime, stat.st_size)
                if self.file.read_text() == self.text
                else None
            )
        except FileNotFoundError:
            return None
