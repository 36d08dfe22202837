"""The tiers of an output as an image of labels, which viewers of OME-Zarr lay over it."""

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.ome import axes, pixel_space
from tierscale.pipeline.output.pictures.tile_maps import TileMap
from tierscale.pipeline.output.store import storage_errors
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.storage.paths import join_path
from tierscale.pipeline.storage.zarr_store import write_nodes

GROUP, NAME = "labels", "tiers"
# Side of a chunk, in tiles of the image.
CHUNK = 1024


def write_tier_labels(output: str, plan: Plan, metadata: PhotoMetadata) -> None:
    """Write the group labels/tiers: a value for each tile, 1 for the lightest tier, 2 for the next.

    metadata: of the output. Source: OME-NGFF 0.5, sections "labels" and "image-label".
    """
    tiles = TileMap.of(plan)
    attributes = {"ome": label_attributes(tiles, metadata, plan.scale)}
    values = (plan.routes + 1).astype(np.uint8)[None]
    with storage_errors(output):
        write_nodes(join_path(output, GROUP), partial(_make, attributes, values))


def _make(attributes: dict[str, Any], values: np.ndarray, memory: MemoryStore) -> None:
    """The groups and the array, made in memory."""
    listed: dict[str, Any] = {"ome": {"version": "0.5", "labels": [NAME]}}
    zarr.open_group(memory, mode="w", zarr_format=3, attributes=listed)
    group = zarr.open_group(memory, path=NAME, mode="w", zarr_format=3, attributes=attributes)
    array = group.create_array(
        "0",
        shape=values.shape,
        dtype=values.dtype,
        chunks=(1, *(min(CHUNK, side) for side in values.shape[1:])),
        dimension_names=("c", "y", "x"),
        fill_value=0,
    )
    array[:] = values


def label_attributes(tiles: TileMap, metadata: PhotoMetadata, scale: Fraction) -> dict[str, Any]:
    """OME-NGFF metadata of the labels: where tiles lie, their colours, and the names of tiers.

    The corner of the first tile is that of the first pixel.
    """
    size, origin, unit = pixel_space(metadata, scale)
    side = float(tiles.tile * scale)  # in pixels of the output
    step = [length * side for length in size]
    centre = [at + length * (side - 1) / 2 for at, length in zip(origin, size, strict=True)]
    transforms = [
        {"type": "scale", "scale": [1.0, *step]},
        {"type": "translation", "translation": [0.0, *centre]},
    ]
    dataset = {"path": "0", "coordinateTransformations": transforms}
    colours = [
        {"label-value": tier + 1, "rgba": [*map(int, tint), 128]}
        for tier, tint in enumerate(tiles.tints)
    ]
    names = [{"label-value": tier + 1, "tier": label} for tier, label in enumerate(tiles.labels)]
    return {
        "version": "0.5",
        "multiscales": [{"name": NAME, "axes": axes(unit), "datasets": [dataset]}],
        "image-label": {
            "colors": colours,
            "properties": names,
            "source": {"image": "../../"},
        },
    }
