"""Where the pixels of an OME-Zarr level lie: sizes, positions and units of its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tierscale.pipeline.formats.metadata import PhotoMetadata, Position


@dataclass(frozen=True, slots=True)
class AxisSpace:
    """Where the pixels of an axis lie: `step` apart, the first centre at `start`, in `unit`."""

    step: float
    start: float
    unit: str | None


def placement(
    scales: Mapping[str, Any], dataset: Mapping[str, Any], listed: Sequence[Any], axes: str
) -> dict[str, AxisSpace]:
    """Each axis in space: the transforms of a level, and after them those of its image."""
    steps, starts = [1.0] * len(axes), [0.0] * len(axes)
    for holder in (dataset, scales):
        for transform in holder.get("coordinateTransformations", ()):
            values = transform.get(transform.get("type"), ())
            if transform.get("type") == "scale" and len(values) == len(axes):
                steps = [a * float(b) for a, b in zip(steps, values, strict=True)]
                starts = [a * float(b) for a, b in zip(starts, values, strict=True)]
            if transform.get("type") == "translation" and len(values) == len(axes):
                starts = [a + float(b) for a, b in zip(starts, values, strict=True)]
    units = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in listed]
    spaces = map(AxisSpace, steps, starts, units)
    return dict(zip(axes, spaces, strict=True))


def placed(metadata: PhotoMetadata, space: Mapping[str, AxisSpace]) -> PhotoMetadata:
    """Metadata with the size of a pixel and the centre of the first one.

    Lengths without a unit are kept where they are not pixels themselves.
    """
    y, x = space["y"], space["x"]
    size = (y.step, x.step) if y.unit or (y.step, x.step) != (1, 1) else None
    origin = (y.start, x.start) if y.start or x.start else None
    return replace(metadata, pixel_size=size, pixel_unit=y.unit, origin=origin)


def plane_of(space: Mapping[str, AxisSpace], at: Mapping[str, int]) -> tuple[Position, ...]:
    """Where the selected plane lies on each axis that the output does not have."""
    return tuple(
        Position(axis, index, space[axis].start + index * space[axis].step, space[axis].unit)
        for axis, index in at.items()
    )
