"""OME-Zarr images as sources."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.commands import FAST, check_refusal, tierscale
from tests.pipeline.formats.pictures import whole
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("nested", [True, False])
def test_a_label_image_is_refused_because_labels_would_be_made_up(tmp_path, dtype, nested):
    said = {"image-label": {}, "multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}
    group = zarr.open_group(
        tmp_path / "a.zarr", mode="w", attributes={"ome": said} if nested else said
    )
    group.create_array("0", shape=(8, 8), dtype=dtype)
    with pytest.raises(Refused, match="label image"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(("present", "named"), [("B/3", r"a\.zarr/B/3/7"), (None, "none of which")])
def test_a_plate_names_an_image_that_is_there(tmp_path, present, named):
    plate = {"wells": [{"path": "A/1"}, {"path": "B/3"}]}
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"plate": plate})
    if present:
        group.create_group(present).attrs["well"] = {"images": [{"path": "7"}]}
    with pytest.raises(Refused, match=named):
        open_image(tmp_path / "a.zarr")


def placed_zarr(path: Path, pixels: np.ndarray, unit: str | None = "micrometer") -> None:
    """Channels of an OME-Zarr 0.4 with a translation and windows, and a level of half the size."""
    space = [{"name": n, "type": "space", **({"unit": unit} if unit else {})} for n in "zyx"]
    transforms = [
        [
            {"type": "scale", "scale": [1, 2.0, 0.5 * 2**i, 0.25 * 2**i]},
            {"type": "translation", "translation": [0, 7, 1000 + i * 0.25, 2000 + i * 0.125]},
        ]
        for i in range(2)
    ]
    datasets = [
        {"path": f"s{i}", "coordinateTransformations": one} for i, one in enumerate(transforms)
    ]
    windows = [{"min": 0, "max": 65535, "start": 100, "end": end} for end in (2000, 3000)]
    channels = [
        {"color": "00FF00", "label": name, "window": window}
        for name, window in zip(("DAPI", "GFP"), windows, strict=True)
    ]
    axes = [{"name": "c", "type": "channel"}, *space]
    held = {"multiscales": [{"axes": axes, "datasets": datasets, "version": "0.4"}]}
    attributes: Any = {**held, "omero": {"channels": channels}}
    group = zarr.open_group(str(path), mode="w", zarr_format=2, attributes=attributes)
    for i in range(2):
        part = pixels[..., :: 2**i, :: 2**i]
        group.create_array(f"s{i}", shape=part.shape, chunks=(1, 1, 16, 16), dtype="u2")[:] = part


@pytest.fixture
def placed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 5000, (2, 3, 40, 30), dtype=np.uint16)
    placed_zarr(tmp_path / "a.zarr", pixels)
    return tmp_path / "a.zarr"


def test_a_translation_is_where_the_first_pixel_lies_and_the_plane_in_its_stack(placed):
    with open_image(placed, Selection(z=2)) as source:
        metadata = source.metadata
    assert metadata.origin == (1000, 2000) and metadata.pixel_size == (0.5, 0.25)
    assert [tuple(one) for one in metadata.plane] == [("z", 2, 11.0, "micrometer")]
    assert metadata.channel_windows == ((100, 2000), (100, 3000))
    enlarged = metadata.scaled(Fraction(4))
    assert enlarged.origin == (999.8125, 1999.90625)
    assert metadata.cropped(100, 50).scaled(Fraction(4)).origin == (1024.8125, 2024.90625)
    assert enlarged.plane == metadata.plane
    with open_image(placed, Selection(level=1)) as source:
        assert source.metadata.origin == (1000.25, 2000.125)


def test_lengths_without_a_unit_are_kept_as_they_are(tmp_path):
    pixels = np.zeros((2, 3, 40, 30), np.uint16)
    placed_zarr(tmp_path / "a.zarr", pixels, None)
    with open_image(tmp_path / "a.zarr") as source:
        metadata = source.metadata
    assert (metadata.pixel_size, metadata.pixel_unit) == ((0.5, 0.25), None)
    assert metadata.origin == (1000, 2000)


def test_metadata_of_another_number_of_channels_are_left_out_with_a_note(placed):
    attributes = json.loads((placed / ".zattrs").read_text())
    attributes["omero"]["channels"].append({"label": "Cy5", "color": "FF0000"})
    (placed / ".zattrs").write_text(json.dumps(attributes))
    with open_image(placed) as source:
        assert source.metadata.channel_names == source.metadata.channel_windows == ()
        assert any("name 3 channels and it has 2" in note for note in source.notes)


def test_a_group_with_foreign_and_broken_members_is_refused_in_one_line(tmp_path, capsys):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name in ("bands", "broken", "torn"):
        group.create_array(name, shape=(8, 8), chunks=(4, 4), dtype="u1")
    document = json.loads((tmp_path / "a.zarr/broken/zarr.json").read_text())
    (tmp_path / "a.zarr/broken/zarr.json").write_text(json.dumps({**document, "fill_value": None}))
    (tmp_path / "a.zarr/torn/zarr.json").write_text("{")
    (tmp_path / "a.zarr/pam.aux.xml").write_text("<PAMDataset/>")
    result = tierscale(capsys, "plan", tmp_path / "a.zarr", tmp_path / "b.zarr", *FAST)
    check_refusal(result, 2, "is not an OME-Zarr image; name one of its arrays: bands")


def test_a_label_image_among_several_images_is_refused(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    scales = [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    for name, said in (("0", {}), ("1", {"image-label": {}})):
        group = root.create_group(name, attributes={"multiscales": scales, **said})
        group.create_array("0", shape=(8, 8), dtype="u2")
    with open_image(tmp_path / "a.zarr", Selection(series=0)) as source:
        assert source.shape == (1, 8, 8)
    with pytest.raises(Refused, match="label image"):
        open_image(tmp_path / "a.zarr", Selection(series=1))


def test_no_data_that_the_array_of_a_level_states_is_used(tmp_path):
    said = {"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", attributes=said)
    group.create_array("0", shape=(8, 8), dtype="f4", attributes={"_FillValue": -9999.0})
    with open_image(tmp_path / "a.zarr") as source:
        assert source.metadata.nodata == -9999
