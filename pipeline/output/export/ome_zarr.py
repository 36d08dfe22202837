"""An output as OME-Zarr 0.4, for programs that read no version 3 of zarr, or no shards."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import zarr

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.export.common import Exported, Progress, whole_folder, with_progress
from tierscale.pipeline.version import code_version

# Sides of chunks, in pixels; and the chunks beside each other that are read at a time.
CHUNK = 512
SPAN = 16 * CHUNK
# What readers of version 2 of zarr have had from the first.
BLOSC: Mapping[str, str | int] = {
    "id": "blosc",
    "cname": "lz4",
    "clevel": 5,
    "shuffle": 1,
    "blocksize": 0,
}


def export_ome_zarr(image: Exported, out: str, *, progress: Progress | None = None) -> None:
    """Write all pyramid levels as a zarr of version 2 with OME-NGFF 0.4 in its attributes.

    Chunks are those of one channel, 512 pixels a side, in files of their own by "/", compressed by
    Blosc; metadata are consolidated, and name the axes as xarray and tiatoolbox look for them.
    Source: OME-NGFF 0.4. progress: (blocks written, all).
    """
    levels = image.levels()
    blocks = [
        (level, channel, y, x)
        for level, array in enumerate(levels)
        for channel, y, x in itertools.product(
            range(array.shape[0]), range(0, array.shape[1], CHUNK), range(0, array.shape[2], SPAN)
        )
    ]
    with whole_folder(out) as temporary:
        group = zarr.open_group(temporary, mode="a", zarr_format=2)
        group.attrs.update(older_attributes(image))
        arrays = [_created(group, str(number), level) for number, level in enumerate(levels)]
        for level, channel, y, x in with_progress(blocks, len(blocks), progress):
            part = slice(channel, channel + 1), slice(y, y + CHUNK), slice(x, x + SPAN)
            arrays[level][part] = image.read(levels[level], part)
        zarr.consolidate_metadata(temporary, zarr_format=2)


def _created(group: zarr.Group, name: str, level: zarr.Array) -> zarr.Array:
    """An empty array like a level, in chunks that are not sharded."""
    return group.create_array(
        name,
        shape=level.shape,
        dtype=level.dtype,
        chunks=(1, min(CHUNK, level.shape[1]), min(CHUNK, level.shape[2])),
        compressors=BLOSC,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        fill_value=level.fill_value,
        attributes={**level.attrs, "_ARRAY_DIMENSIONS": ["c", "y", "x"]},
    )


def older_attributes(image: Exported) -> dict[str, Any]:
    """Attributes of the group as OME-NGFF 0.4 has them: at the top, each with a version.

    Refused: the output has none.
    """
    stored = dict(zarr.open_group(image.path, mode="r").attrs)
    ome = stored.get("ome")
    if not isinstance(ome, dict):
        raise Refused(f"{image.path} is not an OME-Zarr image; name an output of tierscale")
    omero = {"id": 1, "name": image.name(), "version": "0.4", **ome.get("omero", {})}
    ours = stored.get("tierscale")
    # Without its plan: into this copy nothing is written any more.
    facts = {k: v for k, v in ours.items() if k != "plan"} if isinstance(ours, dict) else {}
    return {
        "multiscales": [{**ome["multiscales"][0], "version": "0.4"}],
        "omero": omero,
        "_ARRAY_DIMENSIONS": ["c", "y", "x"],
        "_creator": {"name": "tierscale", "version": code_version()},
        "tierscale": facts,
    }
