"""Which image a plan is made for, and where its pixels are read from when it is carried out."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tierscale.pipeline.plan.options import Region, Selection


@dataclass(frozen=True, slots=True)
class SourceRef:
    """The image and the part of it that a plan is made for.

    uri: absolute path or address; it is not part of a plan's identity, `identity` is.
    identity: what tells whether the content is the same one again: format, size, checksum.
    nodata: value that marks missing pixels, or None. value_range: the range that was asked for,
    or None.
    """

    uri: str
    identity: Mapping[str, str | int]
    selection: Selection
    region: Region | None
    nodata: float | None
    value_range: tuple[float, float] | None

    def __hash__(self) -> int:
        return hash((self.uri, json.dumps(self.identity, sort_keys=True), self.selection))

    def to_json(self) -> dict[str, Any]:
        """JSON values without the address."""
        return {
            "identity": dict(self.identity),
            "selection": asdict(self.selection),
            "region": list(self.region) if self.region else None,
            # Text, because the value may be NaN, which JSON does not know.
            "nodata": None if self.nodata is None else str(self.nodata),
            "range": list(self.value_range) if self.value_range else None,
        }

    @staticmethod
    def from_json(uri: str, plain: Mapping[str, Any]) -> "SourceRef":
        """The reference that to_json() wrote."""
        region, nodata, value_range = (plain[name] for name in ("region", "nodata", "range"))
        return SourceRef(
            uri,
            dict(plain["identity"]),
            Selection(**plain["selection"]),
            (region[0], region[1], region[2], region[3]) if region else None,
            None if nodata is None else float(nodata),
            (value_range[0], value_range[1]) if value_range else None,
        )

    @property
    def in_place(self) -> "PixelSource":
        """The source itself as the place to read pixels from."""
        return PixelSource(self.uri, self.selection, self.region, False)

    def copied_to(self, uri: str) -> "PixelSource":
        """An ingested copy as the place to read pixels from; it holds the selected image alone."""
        return PixelSource(uri, Selection(), self.region, True)


@dataclass(frozen=True, slots=True)
class PixelSource:
    """Where workers read pixels from. It travels beside a plan: the plan is the same wherever its
    pixels lie.

    copied: `uri` is a copy that was made to be read by windows, and that may be taken away.
    """

    uri: str
    selection: Selection
    region: Region | None
    copied: bool
