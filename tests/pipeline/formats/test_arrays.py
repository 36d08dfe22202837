"""Arrays in memory, zarr and OME-Zarr as sources."""

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr

from tests.pipeline.formats.pictures import check, picture, whole
from tierscale.pipeline.errors import Damaged, Refused, Unreachable
from tierscale.pipeline.formats.registry import open_array, open_image
from tierscale.pipeline.plan.options import Selection


@pytest.mark.parametrize(
    "make", [np.asarray, lambda a: dask.array.from_array(a, chunks=7)], ids=["numpy", "dask"]
)
@pytest.mark.parametrize(
    ("axes", "channels", "colour"),
    [("cyx", 1, "grey"), ("yxc", 2, "channels"), ("yxc", 3, "rgb"), ("cyx", 4, "rgba")],
)
def test_arrays_are_sources(make, axes, channels, colour):
    array = picture(20, 30, channels)
    source = open_array(make(array if axes == "yxc" else array.transpose(2, 0, 1)), axes)
    assert source.colour == colour and source.random_access
    np.testing.assert_array_equal(whole(source), array.transpose(2, 0, 1))


def test_arrays_that_are_no_images_are_refused():
    for array, axes in (
        (np.zeros((4, 4)), "cyx"),
        (np.zeros((4, 4, 3)), "yx"),
        (np.zeros((0, 4)), "yx"),
        (np.zeros((4, 4), complex), "yx"),
    ):
        with pytest.raises(Refused):
            open_array(array, axes)
    with pytest.raises(Refused, match="object"):
        open_array(np.array([[None, None]]), "yx")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
def test_a_plain_zarr_array_comes_back(tmp_path, version, dtype):
    pixels = picture(50, 70).transpose(2, 0, 1).astype(dtype)
    if version == 3 and dtype == ">u2":
        dtype = "uint16"
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=pixels.shape,
        chunks=(3, 16, 16),
        dtype=dtype,
        zarr_format=version,
    )
    array[:] = pixels
    check(
        tmp_path / "a.zarr",
        pixels.astype(np.dtype(dtype).newbyteorder("=")),
        colour="rgb",
        random_access=True,
    )
    part = next(
        path
        for path in sorted((tmp_path / "a.zarr").rglob("*"))
        if path.is_file() and path.stat().st_size > 100 and "." not in path.name[1:2]
    )
    part = (
        part
        if part.name != "zarr.json"
        else next(p for p in sorted((tmp_path / "a.zarr" / "c").rglob("*")) if p.is_file())
    )
    part.write_bytes(part.read_bytes()[:20])
    with pytest.raises(Damaged, match=r"a\.zarr"), open_image(tmp_path / "a.zarr") as source:
        whole(source)


def test_a_zarr_that_goes_away_is_never_black(tmp_path, monkeypatch):
    """Chunks that are missing read as black, as those do that were never written."""
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(40, 40), chunks=(8, 8), dtype="u1")
    array[:32] = 7
    with open_image(tmp_path / "a.zarr") as source:
        pixels = source.read(0, 40, 0, 40)
        assert (pixels[:, :32] == 7).all() and not pixels[:, 32:].any()
        whole_read = type(array).__getitem__

        def unmounted(self, at):
            (tmp_path / "a.zarr").rename(tmp_path / "away")
            return whole_read(self, at)

        with monkeypatch.context() as patched:
            patched.setattr(type(array), "__getitem__", unmounted)
            with pytest.raises(Unreachable, match=r"a\.zarr went away while it was read"):
                source.read(0, 40, 0, 40)
        (tmp_path / "away").rename(tmp_path / "a.zarr")
        assert (source.read(0, 32, 0, 40) == 7).all()


def ome_zarr(
    path: Path, pixels: np.ndarray, version: int, colours: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """An OME-Zarr image of axes tczyx with one further level."""
    axes = [
        {"name": name, "type": "space" if name in "zyx" else "time" if name == "t" else "channel"}
        for name in "tczyx"
    ]
    axes[3]["unit"] = axes[4]["unit"] = "micrometer"
    datasets = [
        {
            "path": str(i),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 1, 1, 0.5 * 2**i, 0.25 * 2**i]}
            ],
        }
        for i in range(2)
    ]
    held: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": datasets, "version": "0.4"}]}
    held["omero"] = {
        "channels": [
            {"color": colour, "label": name} for colour, name in zip(colours, names, strict=True)
        ]
    }
    attributes = held if version == 2 else {"ome": {"version": "0.5", **held}}
    group = zarr.open_group(str(path), mode="w", zarr_format=version, attributes=attributes)
    for i in range(2):
        part = pixels[..., :: 2**i, :: 2**i]
        group.create_array(str(i), shape=part.shape, chunks=(1, 1, 1, 16, 16), dtype=part.dtype)[
            :
        ] = part


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_plane_level_size_and_colour(tmp_path, version):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 40, 30), dtype=np.uint8)
    ome_zarr(tmp_path / "a.zarr", pixels, version, ("FF0000", "00FF00", "0000FF"), ("", "", ""))
    with open_image(tmp_path / "a.zarr", Selection(z=3, t=1, level=1)) as source:
        np.testing.assert_array_equal(whole(source), pixels[1, :, 3, ::2, ::2])
        assert (
            source.colour == "rgb"
            and source.metadata.pixel_size == (1.0, 0.5)
            and source.metadata.pixel_unit == "micrometer"
        )
        assert any("z=3 of 4" in note for note in source.notes)
    with pytest.raises(Refused, match="--t goes from 0 to 1"):
        open_image(tmp_path / "a.zarr", Selection(t=2))
    ome_zarr(
        tmp_path / "dyes.zarr",
        pixels,
        version,
        ("FF0000", "00FF00", "0000FF"),
        ("Cy5", "FITC", "DAPI"),
    )
    with open_image(tmp_path / "dyes.zarr") as source:
        assert source.colour == "channels" and source.metadata.channel_names == (
            "Cy5",
            "FITC",
            "DAPI",
        )


def test_the_bioformats_layout_counts_images(tmp_path, shared):
    with open_image(
        shared / "data/large/CMU-1-Small-Region.ome.zarr", Selection(series=1)
    ) as source:
        assert source.colour == "rgb" and any("image 1 of 3" in note for note in source.notes)
    with (
        open_image(shared / "data/large/CMU-1-Small-Region.ome.zarr") as ours,
        open_image(shared / "data/large/CMU-1-Small-Region.svs") as svs,
    ):
        assert ours.shape == svs.shape == (
            3,
            2967,
            2220,
        ) and ours.metadata.pixel_size == svs.metadata.pixel_size == (0.499, 0.499)
        difference = ours.read(500, 700, 500, 700).astype(int) - svs.read(500, 700, 500, 700)
        assert np.abs(difference).max() <= 3  # both decode the same JPEG tiles
