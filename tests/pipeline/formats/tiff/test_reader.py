"""Every TIFF comes back: layouts, types, colours, stacks, levels; damage names its tile."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import LAYOUTS, check, picture, whole
from tests.pipeline.output.export.sample import ICC
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_rgb_comes_back_from_any_layout(tmp_path, layout, planar, order, dtype):
    pixels = picture(101, 77, 3, dtype)
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        byteorder=order,
        photometric="rgb",
        planarconfig=planar,
        metadata=None,
        **LAYOUTS[layout],
    )
    in_place = layout not in ("strips", "one strip")
    check(
        tmp_path / "a.tif",
        pixels.transpose(2, 0, 1),
        colour="rgb",
        alpha=None,
        random_access=in_place,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float_tiff_keeps_its_values(tmp_path, layout):
    pixels = picture(101, 77, 1, np.float32)[..., 0] * 1e30
    pixels[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **LAYOUTS[layout])
    check(tmp_path / "a.tif", pixels[None], colour="grey")


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [("unassalpha", "straight"), ("assocalpha", "premultiplied"), ("unspecified", None)],
)
def test_alpha_is_what_the_tiff_says_and_unknown_samples_are_channels(tmp_path, kind, alpha):
    pixels = picture(20, 30, 4)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[kind])
    check(
        tmp_path / "a.tif",
        pixels.transpose(2, 0, 1),
        colour="rgba" if alpha else "channels",
        alpha=alpha,
    )
    tifffile.imwrite(
        tmp_path / "b.tif",
        pixels[..., :2],
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[kind],
    )
    check(
        tmp_path / "b.tif",
        pixels.transpose(2, 0, 1)[:2],
        colour="greya" if alpha else "channels",
        alpha=alpha,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(tmp_path, dtype):
    pixels = picture(20, 30, 1, dtype)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    check(tmp_path / "a.tif", np.iinfo(dtype).max - pixels[None], colour="grey")


def test_a_palette_becomes_its_colours(tmp_path):
    indices = np.arange(256, dtype=np.uint8).reshape(8, 32)
    table = np.random.default_rng(1).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=table)
    check(tmp_path / "a.tif", (table >> 8).astype(np.uint8)[:, indices], colour="rgb")


def test_known_colours_of_lab_and_cmyk(tmp_path):
    # L*a*b* (D50) of white, black, middle grey and pure sRGB red, blue and green, from Lindbloom's
    # calculator; a and b in two's complement.
    lab = np.array(
        [
            [
                [255, 0, 0],
                [0, 0, 0],
                [round(53.585 * 2.55), 0, 0],
                [round(54.29 * 2.55), 81, 70],
                [75, 68, 256 - 112],
                [224, 256 - 79, 81],
            ]
        ],
        dtype=np.uint8,
    )
    tifffile.imwrite(tmp_path / "lab.tif", lab, photometric="cielab", metadata=None)
    with open_image(tmp_path / "lab.tif") as source:
        rgb = source.read(0, 1, 0, 6)[:, 0].T.astype(int)
    assert (
        np.abs(
            rgb
            - [[255, 255, 255], [0, 0, 0], [128, 128, 128], [255, 0, 0], [0, 0, 255], [0, 255, 0]]
        ).max()
        <= 16
    )
    ink = np.array(
        [[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 128, 255, 0]]], dtype=np.uint8
    )
    tifffile.imwrite(tmp_path / "cmyk.tif", ink, photometric="separated", metadata=None)
    expected = np.array([[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 127, 0]], dtype=np.uint8)
    check(tmp_path / "cmyk.tif", expected.T[:, None], colour="rgb")


@pytest.mark.parametrize(
    ("dtype", "expected_dtype"),
    [
        (np.int8, np.float32),
        (np.int16, np.float32),
        (np.float16, np.float32),
        (np.float64, np.float32),
        (np.uint32, np.float32),
    ],
)
def test_other_types_keep_their_values(tmp_path, dtype, expected_dtype):
    pixels = (
        np.arange(600).reshape(20, 30) % 200 - (100 if np.dtype(dtype).kind != "u" else 0)
    ).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    check(tmp_path / "a.tif", pixels.astype(expected_dtype)[None])
    with open_image(tmp_path / "a.tif") as source:
        assert any(str(np.dtype(dtype)) in note for note in source.notes)


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_few_bits_are_spread_and_odd_bits_are_stated(tmp_path, bits):
    pixels = (
        np.random.default_rng(0)
        .integers(0, 2**bits, (20, 32))
        .astype(np.uint16 if bits == 12 else np.uint8)
    )
    row = np.unpackbits(pixels.astype(">u2").view(np.uint8).reshape(20, 32, 2), axis=-1)[
        ..., 16 - bits :
    ].reshape(20, -1)
    data = np.packbits(row, axis=-1).tobytes()
    entries = [
        (256, 4, 32),
        (257, 4, 20),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, 20),
        (279, 4, len(data)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    (tmp_path / "a.tif").write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0" * 4
    )
    expected = pixels if bits == 12 else pixels * (255 // (2**bits - 1))
    check(
        tmp_path / "a.tif",
        expected[None].astype(pixels.dtype),
        colour="grey",
        bits=12 if bits == 12 else None,
    )


def test_jpeg_tiles_are_rgb(tmp_path):
    pixels = np.full((64, 64, 3), (200, 100, 30), np.uint8)
    for photometric in ("rgb", "ycbcr"):
        args = {"outcolorspace": photometric}
        tifffile.imwrite(
            tmp_path / "a.tif",
            pixels,
            photometric="rgb",
            tile=(32, 32),
            compression="jpeg",
            compressionargs=args,
        )
        with open_image(tmp_path / "a.tif") as source:
            assert np.abs(whole(source).astype(int) - pixels.transpose(2, 0, 1)).max() <= 2
            assert source.colour == "rgb" and source.random_access


def test_levels_and_series_are_chosen_and_others_refused(tmp_path):
    pixels = picture(128, 96)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(pixels, tile=(32, 32), photometric="rgb", subifds=1, metadata=None)
        writer.write(
            pixels[::2, ::2], tile=(32, 32), photometric="rgb", subfiletype=1, metadata=None
        )
        writer.write(pixels[:10, :10, 0], photometric="minisblack", metadata=None)
    with open_image(tmp_path / "a.tif", Selection(level=1)) as source:
        np.testing.assert_array_equal(whole(source), pixels[::2, ::2].transpose(2, 0, 1))
    with open_image(tmp_path / "a.tif", Selection(series=1)) as source:
        assert source.shape == (1, 10, 10) and any("image 1 of 2" in note for note in source.notes)
    with pytest.raises(Refused, match="--series goes from 0 to 1"):
        open_image(tmp_path / "a.tif", Selection(series=2))
    with pytest.raises(Refused, match="--level goes from 0 to 1"):
        open_image(tmp_path / "a.tif", Selection(level=2))
    with pytest.raises(Refused, match="--z"):
        open_image(tmp_path / "a.tif", Selection(z=1))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_plane_of_an_ome_stack_and_all_its_channels(tmp_path, compression):
    stack = np.random.default_rng(0).integers(0, 999, (2, 3, 4, 40, 50), dtype=np.uint16)
    size = {
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    metadata = {
        "axes": "TCZYX",
        "Channel": {"Name": ["a", "b", "c"]},
        "SignificantBits": 10,
        **size,
    }
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        stack,
        photometric="minisblack",
        metadata=metadata,
        compression=compression,
    )
    with open_image(tmp_path / "a.ome.tif", Selection(z=2, t=1)) as source:
        np.testing.assert_array_equal(whole(source), stack[1, :, 2])
        assert (
            source.colour == "channels"
            and source.metadata.channel_names == ("a", "b", "c")
            and source.bits == 10
        )
        assert (
            source.metadata.pixel_size == (0.5, 0.25) and source.metadata.pixel_unit == "micrometer"
        )
        assert {"took plane z=2 of 4 (--z chooses)", "took plane t=1 of 2 (--t chooses)"} <= set(
            source.notes
        )
    with pytest.raises(Refused, match="--z goes from 0 to 3"):
        open_image(tmp_path / "a.ome.tif", Selection(z=4))


def test_an_imagej_stack_with_one_directory_gives_the_right_plane(tmp_path):
    stack = np.random.default_rng(0).integers(0, 999, (5, 2, 30, 40), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        imagej=True,
        truncate=True,
        metadata={"axes": "ZCYX"},
        byteorder=">",
    )
    with open_image(tmp_path / "a.tif", Selection(z=3)) as source:
        np.testing.assert_array_equal(whole(source), stack[3])
        assert source.colour == "channels"


def corrupted(path: Path, number: int, change: str) -> None:
    """Spoil tile `number`: zero its data, empty it, or let it begin beyond the end of the file."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        page = tif.pages.first
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        if change == "zeros":
            tif.filehandle.seek(offset)
            tif.filehandle.write(b"\0" * count)
        else:
            name = "TileOffsets" if change == "beyond" else "TileByteCounts"
            values = list(page.tags[name].value)
            values[number] = {"beyond": 10**7, "empty": 0, "half": count // 2}[change]
            page.tags[name].overwrite(values)


@pytest.mark.parametrize("change", ["zeros", "beyond", "empty", "half"])
@pytest.mark.parametrize("compression", ["zlib", "jpeg", "lzw", "zstd"])
def test_a_corrupt_tile_is_named_and_the_others_can_be_read(tmp_path, change, compression):
    pixels = picture(64, 96)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", tile=(32, 32), compression=compression
    )
    corrupted(tmp_path / "a.tif", 4, change)
    with pytest.raises(Damaged, match=r"a\.tif: .*\b4\b"), open_image(tmp_path / "a.tif") as source:
        source.read(0, 32, 0, 96)
        source.read(0, 64, 0, 96)


def test_a_jpeg_tile_that_claims_to_be_huge_is_damaged(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", picture(64, 64), photometric="rgb", tile=(32, 32), compression="jpeg"
    )
    data = (tmp_path / "a.tif").read_bytes()
    frame = data.index(b"\xff\xc0")
    (tmp_path / "a.tif").write_bytes(data[: frame + 5] + b"\xff\xf0\xff\xf0" + data[frame + 9 :])
    with (
        open_image(tmp_path / "a.tif") as source,
        pytest.raises(Damaged, match=r"tile 0 .* 65520 x 65520"),
    ):
        source.read(0, 9, 0, 9)


def test_a_tile_beyond_the_end_is_found_when_opened(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", picture(64, 96), photometric="rgb", tile=(32, 32), compression="zlib"
    )
    corrupted(tmp_path / "a.tif", 4, "beyond")
    with pytest.raises(Damaged, match="cut short"):
        open_image(tmp_path / "a.tif")


def test_gdal_may_leave_out_tiles_of_no_data(tmp_path):
    pixels = picture(64, 96, 1, np.float32)[..., 0]
    tags = [(42113, "s", 0, "-9999", True)]
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib", extratags=tags, metadata=None
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for name in ("TileOffsets", "TileByteCounts"):
            values = list(tif.pages.first.tags[name].value)
            tif.pages.first.tags[name].overwrite([0, *values[1:]])
    with open_image(tmp_path / "a.tif") as source:
        assert source.metadata.nodata == -9999
        assert (source.read(0, 32, 0, 32) == -9999).all()
        np.testing.assert_array_equal(source.read(32, 64, 0, 96)[0], pixels[32:])


def test_an_ome_tiff_never_opens_other_files(tmp_path, monkeypatch):
    other = tmp_path / "other.ome.tif"
    tifffile.imwrite(other, np.full((16, 16), 7, np.uint8))
    names = "".join(
        f'<TiffData IFD="0" FirstC="{c}"><UUID'
        f' FileName="other.ome.tif">urn:uuid:00000000-0000-0000-0000-00000000000{c}</UUID>'
        "</TiffData>"
        for c in range(2)
    )
    pixels = (
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="16" SizeY="16" SizeC="2"'
        f' SizeZ="1" SizeT="1">{names}</Pixels>'
    )
    text = (
        '<?xml version="1.0"?><OME'
        ' xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image'
        f' ID="Image:0">{pixels}</Image></OME>'
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.full((16, 16), 5, np.uint8), description=text, metadata=None
    )
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    try:
        with open_image(tmp_path / "a.ome.tif") as source:
            assert (whole(source) == 5).all()
    except (Refused, Damaged):
        pass
    assert opened and not any("other.ome.tif" in path for path in opened)


def test_a_smaller_level_has_the_facts_of_the_whole_in_its_own_pixels(tmp_path):
    keys = (1, 1, 0, 1, 3072, 0, 1, 32632)
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 400000.0, 5000000.0, 0.0), True),
        (34735, "H", 8, keys, True),
    ]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        options = {"photometric": "rgb", "metadata": None, "tile": (32, 32)}
        tif.write(picture(64, 96), **options, extratags=tags, iccprofile=ICC, resolution=(300, 300))
        tif.write(picture(32, 48), **options, subfiletype=1)
    with open_image(tmp_path / "a.tif", Selection(level=1)) as source:
        metadata = source.metadata
    assert metadata.geo["ModelPixelScale"] == [1, 1, 0]
    assert metadata.geo["ModelTiepoint"] == [0, 0, 0, 400000, 5000000, 0]
    assert (metadata.icc, metadata.resolution) == (ICC, (150, 150))


def test_a_smaller_level_of_an_ome_tiff_has_larger_pixels_half_a_pixel_further(tmp_path):
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(picture(64, 96), photometric="rgb", metadata=size, subifds=1)
        tif.write(picture(32, 48), photometric="rgb", subfiletype=1)
    with open_image(tmp_path / "a.ome.tif", Selection(level=1)) as source:
        assert source.metadata.pixel_size == (1, 0.5)
        assert source.metadata.origin == (0.25, 0.125)


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ({"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "nm"}, [("z", 2, 4.0, "nanometer")]),
        ({}, [("z", 2, 2.0, None)]),
        (
            {"PhysicalSizeZ": 2.0, "Plane": {"PositionZ": [5, 6, 9], "PositionZUnit": ["mm"] * 3}},
            [("z", 2, 9.0, "millimeter")],
        ),
    ],
)
def test_where_a_plane_of_a_stack_lies(tmp_path, said, at):
    stack = np.stack([picture(20, 30, 1)[..., 0]] * 3)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", stack, photometric="minisblack", metadata={"axes": "ZYX", **said}
    )
    with open_image(tmp_path / "a.ome.tif", Selection(z=2)) as source:
        assert [tuple(one) for one in source.metadata.plane] == at


@pytest.mark.parametrize(
    ("order", "sizes", "plane"),
    [("XYCZT", (3, 2, 1), [3, 4, 5]), ("XYZCT", (3, 2, 1), [1, 3, 5]), ("XYCZT", (6, 1, 1), None)],
)
def test_an_ome_tiff_that_does_not_list_its_planes_has_them_in_its_order(
    tmp_path, order, sizes, plane
):
    stack = [picture(20, 30, 1, seed=seed)[..., 0] for seed in range(6)]
    size = " ".join(f'Size{axis}="{n}"' for axis, n in zip("CZT", sizes, strict=True))
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint8"'
        f' SizeX="30" SizeY="20" {size} PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></Image></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        for number, page in enumerate(stack):
            said = None if number else text.encode()
            tif.write(page, photometric="minisblack", metadata=None, description=said)
    selection = Selection(z=1) if plane else Selection()
    with open_image(tmp_path / "a.ome.tif", selection) as source:
        seen = source.read(0, 20, 0, 30)
        assert source.colour == "channels" and source.metadata.pixel_size == (0.5, 0.5)
    np.testing.assert_array_equal(seen, [stack[number] for number in plane or range(6)])
