"""Whatever is written comes back: formats, layouts, types, orientation, selection, identity,
memory; and every refusal says why.
"""

import itertools
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.arrays.ingest import bands, ingest
from tierscale.pipeline.formats.metadata import PhotoMetadata, scaled_geo
from tierscale.pipeline.formats.png.reader import COLOURS, DEPTHS, PASSES
from tierscale.pipeline.formats.png.stream import SIGNATURE, chunk
from tierscale.pipeline.formats.registry import Source, open_array, open_image
from tierscale.pipeline.plan.options import Selection

AREA = [1, 1, 0, 1, 1025, 0, 1, 1]
POINT = [1, 1, 0, 1, 1025, 0, 1, 2]


def picture(
    height: int, width: int, samples: int = 3, dtype: Any = np.uint8, seed: int = 0
) -> np.ndarray:
    """Smooth and noisy parts, (y, x, samples)."""
    rng = np.random.default_rng(seed)
    ramp = (
        np.linspace(0, 1, width)[None, :, None]
        * np.linspace(0.2, 1, height)[:, None, None]
        * np.linspace(1, 0.5, samples)
    )
    values = np.clip(ramp + rng.normal(0, 0.05, (height, width, samples)), 0, 1)
    return (values * (np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1)).astype(dtype)


def whole(source: Source) -> np.ndarray:
    """Everything, through strips; checks that they cover every row once and are what is
    promised.
    """
    rows = []
    for y, strip in source.strips():
        assert y == sum(part.shape[1] for part in rows)
        assert strip.dtype == source.dtype and strip.dtype.isnative and strip.flags.c_contiguous
        rows.append(strip.copy())
    out = np.concatenate(rows, axis=1)
    assert out.shape == source.shape
    return out


def check(path: Any, expected: np.ndarray, **wanted: Any) -> None:
    """The file holds `expected` (c, y, x), by strips and by windows, and is described as wanted."""
    with open_image(path) as source:
        assert source.shape == expected.shape and source.dtype == expected.dtype
        np.testing.assert_array_equal(whole(source), expected)
        _, height, width = source.shape
        for window in (
            (0, height, 0, width),
            (height // 3, height // 2 + 1, width // 4, width - 1),
            (height - 1, height, width - 1, width),
        ):
            y0, y1, x0, x1 = window
            part = source.read(y0, y1, x0, x1)
            assert part.flags.c_contiguous and part.dtype == source.dtype
            np.testing.assert_array_equal(part, expected[:, y0:y1, x0:x1])
        for name, value in wanted.items():
            assert getattr(source, name) == value, name


# TIFF


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (32, 48), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
    "one strip": {"rowsperstrip": 101, "compression": "zstd"},
    "flat": {},
    "flat strips": {"rowsperstrip": 10},
    "tiles, flat": {"tile": (16, 16)},
}


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
    ("dtype", "kept"),
    [
        (np.int8, np.float32),
        (np.int16, np.float32),
        (np.float16, np.float32),
        (np.float64, np.float32),
        (np.uint32, np.float32),
    ],
)
def test_other_types_keep_their_values(tmp_path, dtype, kept):
    pixels = (
        np.arange(600).reshape(20, 30) % 200 - (100 if np.dtype(dtype).kind != "u" else 0)
    ).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    check(tmp_path / "a.tif", pixels.astype(kept)[None])
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
            and source.facts.channel_names == ("a", "b", "c")
            and source.bits == 10
        )
        assert source.facts.pixel_size == (0.5, 0.25) and source.facts.pixel_unit == "micrometer"
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
        assert source.facts.nodata == -9999
        assert (source.read(0, 32, 0, 32) == -9999).all()
        np.testing.assert_array_equal(source.read(32, 64, 0, 96)[0], pixels[32:])


def test_an_ome_tiff_never_opens_other_files(tmp_path, monkeypatch):
    other = tmp_path / "other.ome.tif"
    tifffile.imwrite(other, np.full((16, 16), 7, np.uint8))
    names = "".join(
        f'<TiffData IFD="0" FirstC="{c}"><UUID'
        f' FileName="other.ome.tif">urn:uuid:00000000-0000-0000-0000-00000000000{c}</UUID></TiffData>'
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


# orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["tiles", "strips", "flat", "png", "jpeg"])
def test_every_orientation_is_shown_as_pillow_shows_it(tmp_path, orientation, form):
    pixels = picture(50, 70)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{form if form in ('png', 'jpeg') else 'tif'}"
    if form in ("png", "jpeg"):
        Image.fromarray(pixels).save(path, exif=exif)
    else:
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(
            path,
            pixels,
            photometric="rgb",
            extratags=tags,
            resolution=(100, 200),
            metadata=None,
            **LAYOUTS[form],
        )
    with Image.open(path) as image:
        shown = ImageOps.exif_transpose(
            image.convert("RGB") if form not in ("png", "jpeg") else image
        )
    if form not in ("png", "jpeg"):
        plain = Image.fromarray(pixels)
        plain.getexif()[274] = orientation
        shown = ImageOps.exif_transpose(plain)
    expected = np.asarray(shown).transpose(2, 0, 1)
    check(path, expected, colour="rgb")
    with open_image(path) as source:
        assert any("upright" in note for note in source.notes) == (orientation > 1)
        if form == "tiles":
            assert source.facts.resolution == ((200, 100) if orientation >= 5 else (100, 200))


def test_a_mirrored_picture_is_not_held_whole(tmp_path):
    exif = Image.Exif()
    for orientation, held in ((2, False), (3, True)):
        exif[274] = orientation
        Image.fromarray(picture(50, 70)).save(tmp_path / "a.png", exif=exif)
        with open_image(tmp_path / "a.png") as source:
            whole(source)
            source.read(0, 9, 0, 9)
            assert (source.pixels.held is not None) == held  # type: ignore[attr-defined]


# PNG


def filtered_png(rows: np.ndarray, pixel: int, seed: int) -> bytes:
    """PNG rows (y, bytes) with a random filter each, as the specification defines them."""
    rng, out, above = np.random.default_rng(seed), b"", np.zeros(rows.shape[1], int)
    for row in rows.astype(int):
        kind = int(rng.integers(0, 5))
        left = np.concatenate([np.zeros(pixel, int), row])[: len(row)]
        corner = np.concatenate([np.zeros(pixel, int), above])[: len(row)]
        near = left + above - corner
        to = np.stack([abs(near - left), abs(near - above), abs(near - corner)])
        paeth = np.choose(to.argmin(axis=0), [left, above, corner])
        guess = [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def packed(samples: np.ndarray, depth: int) -> np.ndarray:
    """Samples (y, x, s) as PNG rows (y, bytes)."""
    height = samples.shape[0]
    if depth >= 8:
        return samples.astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8)
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.reshape(height, -1), axis=-1)


def write_png(
    path: Path,
    samples: np.ndarray,
    kind: int,
    depth: int,
    interlaced: bool,
    extra: bytes = b"",
    seed: int = 0,
) -> None:
    """A PNG of the given samples, with IDAT chunks of 50 bytes."""
    pixel = max(1, depth * samples.shape[2] // 8)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlaced else [samples]
    data = zlib.compress(
        b"".join(filtered_png(packed(part, depth), pixel, seed) for part in parts if part.size)
    )
    header = struct.pack(
        ">IIBBBBB", samples.shape[1], samples.shape[0], depth, kind, 0, 0, int(interlaced)
    )
    pieces = b"".join(chunk(b"IDAT", data[i : i + 50]) for i in range(0, len(data), 50))
    path.write_bytes(SIGNATURE + chunk(b"IHDR", header) + extra + pieces + chunk(b"IEND", b""))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("kind", "depth"), [(kind, depth) for kind, depths in DEPTHS.items() for depth in depths]
)
def test_png_of_every_kind_comes_back(tmp_path, kind, depth, interlaced, monkeypatch):
    monkeypatch.setattr("tierscale.pipeline.formats.png.reader.BAND_BYTES", 200)  # several bands
    colour, count = COLOURS[kind]
    samples = np.random.default_rng(depth).integers(0, 2**depth, (23, 19, count)).astype(np.uint16)
    table = np.random.default_rng(1).integers(0, 256, (2**depth, 3), dtype=np.uint8)
    write_png(
        tmp_path / "a.png",
        samples,
        kind,
        depth,
        interlaced,
        chunk(b"PLTE", table.tobytes()) if kind == 3 else b"",
    )
    expected = (
        table[samples[..., 0]]
        if kind == 3
        else samples * (255 // (2**depth - 1))
        if depth < 8
        else samples
    )
    expected = expected.astype(np.uint16 if depth == 16 else np.uint8).transpose(2, 0, 1)
    check(
        tmp_path / "a.png",
        expected,
        colour=colour,
        alpha="straight" if kind in (4, 6) else None,
        bits=None,
    )


def test_transparent_colours_and_palette_entries_become_alpha(tmp_path):
    samples = np.arange(12, dtype=np.uint16).reshape(3, 4, 1)
    write_png(tmp_path / "grey.png", samples, 0, 4, False, chunk(b"tRNS", struct.pack(">H", 5)))
    check(
        tmp_path / "grey.png",
        np.stack([samples[..., 0] * 17, np.where(samples[..., 0] == 5, 0, 255)]).astype(np.uint8),
        colour="greya",
    )
    table = np.arange(48, dtype=np.uint8).reshape(16, 3)
    write_png(
        tmp_path / "p.png",
        samples,
        3,
        4,
        False,
        chunk(b"PLTE", table.tobytes()) + chunk(b"tRNS", bytes([0, 9])),
    )
    alpha = np.where(samples == 0, 0, np.where(samples == 1, 9, 255))
    check(
        tmp_path / "p.png",
        np.concatenate([table[samples[..., 0]], alpha], axis=-1)
        .astype(np.uint8)
        .transpose(2, 0, 1),
        colour="rgba",
    )


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_cut_or_changed_anywhere_is_damaged(tmp_path, interlaced):
    path = tmp_path / "a.png"
    write_png(path, picture(30, 20).astype(np.uint16), 2, 8, interlaced)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*rng.integers(8, len(good), 40), len(good) - 12]:
        path.write_bytes(good[:at])
        with pytest.raises(Damaged, match=r"a\.png"), open_image(path) as source:
            whole(source)
        changed = bytearray(good)
        changed[at] ^= 0x55
        path.write_bytes(bytes(changed))
        if at >= len(good) - 12:
            continue  # the end chunk holds nothing that could be wrong
        with pytest.raises((Damaged, Refused), match=r"a\.png"), open_image(path) as source:
            whole(source)


# whole-decoded formats


@pytest.mark.parametrize("form", ["WEBP", "BMP", "GIF", "JPEG2000"])
def test_lossless_formats_come_back(tmp_path, form):
    pixels = picture(40, 60)
    image = Image.fromarray(pixels)
    if form == "GIF":
        image = image.quantize(16)
        pixels = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a", format=form, **({"lossless": True} if form == "WEBP" else {}))
    check(tmp_path / "a", pixels.transpose(2, 0, 1), colour="rgb", random_access=False)


def test_a_gif_is_refused_by_what_a_frame_announces_before_it_is_opened(tmp_path, monkeypatch):
    frames = [Image.fromarray(np.full((9, 7), value, np.uint8)) for value in (0, 90, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], disposal=2)
    with open_image(tmp_path / "a.gif") as source:
        assert source.shape[1:] == (9, 7)
    content = bytearray((tmp_path / "a.gif").read_bytes())
    last = content.rindex(b"\x2c\0\0\0\0\x07\0\x09\0")
    content[last + 5 : last + 9] = (
        b"\xff" * 4
    )  # its third frame alone would be a background of 4 GiB
    (tmp_path / "large.gif").write_bytes(content)
    with open_image(tmp_path / "large.gif", Selection(series=1), max_bytes=1 << 30) as source:
        assert source.shape[1:] == (9, 7), "frames behind the selected one are not looked at"
    # An empty extension, behind which Pillow reads one block too many and finds another frame than
    # the file has.
    (tmp_path / "hidden.gif").write_bytes(
        content[:6] + b"\1\0\1\0\0\0\0" + b"\x21\xf9\0" + b"\x2c" + b"\0" * 4 + b"\1\0\1\0\0\2\0;"
    )
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("opened"))
    with pytest.raises(Refused, match=r"large\.gif.*--max-memory 34358689800 "):
        open_image(tmp_path / "large.gif", Selection(series=2), max_bytes=1 << 30)
    with pytest.raises(Damaged, match=r"hidden\.gif.*empty"):
        open_image(tmp_path / "hidden.gif")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_what_pillow_decodes(tmp_path, mode, progressive):
    pixels = picture(70, 50)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.jpg", progressive=progressive)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.convert("RGB") if mode == "CMYK" else image)
    expected = expected[None] if mode == "L" else expected.transpose(2, 0, 1)
    check(tmp_path / "a.jpg", expected, colour="grey" if mode == "L" else "rgb")


@pytest.mark.parametrize("form", ["jpg", "webp", "jp2", "gif", "bmp", "avif"])
def test_a_cut_file_is_damaged(tmp_path, form):
    path = tmp_path / f"a.{form}"
    Image.fromarray(picture(80, 90)).save(path)
    good = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(good[: int(len(good) * share)])
        with pytest.raises(Damaged, match=rf"a\.{form}"), open_image(path) as source:
            whole(source)


@pytest.mark.parametrize(("top", "bits"), [(255, None), (4095, 12), (65535, None)])
def test_pnm_values_stay_as_they_are(tmp_path, top, bits):
    for samples in (1, 3):
        pixels = (
            np.random.default_rng(0)
            .integers(0, top + 1, (11, 13, samples))
            .astype(np.uint8 if top == 255 else np.uint16)
        )
        head = f"P{5 if samples == 1 else 6}\n# made here\n13 11\n{top}\n".encode()
        (tmp_path / "a.pnm").write_bytes(
            head + pixels.astype(">u2" if top > 255 else "u1").tobytes()
        )
        check(tmp_path / "a.pnm", pixels.transpose(2, 0, 1), bits=bits, random_access=True)
    (tmp_path / "a.pnm").write_bytes(head + b"\0" * 10)
    with pytest.raises(Damaged, match="cut short"):
        open_image(tmp_path / "a.pnm")


# arrays and zarr


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4", ">f8"])
@pytest.mark.parametrize("axes", ["yx", "yxc", "cyx"])
def test_npy_of_any_order_comes_back(tmp_path, order, dtype, axes):
    shape = {"yx": (20, 30), "yxc": (20, 30, 3), "cyx": (3, 20, 30)}[axes]
    array = np.asarray(np.random.default_rng(0).integers(0, 200, shape), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    expected = array[None] if axes == "yx" else array.transpose(2, 0, 1) if axes == "yxc" else array
    kept = {"f": np.float32, "u": np.dtype(dtype).newbyteorder("=")}[np.dtype(dtype).kind]
    check(
        tmp_path / "a.npy",
        expected.astype(kept),
        colour="grey" if axes == "yx" else "rgb",
        random_access=True,
    )


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
            and source.facts.pixel_size == (1.0, 0.5)
            and source.facts.pixel_unit == "micrometer"
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
        assert source.colour == "channels" and source.facts.channel_names == ("Cy5", "FITC", "DAPI")


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
        ) and ours.facts.pixel_size == svs.facts.pixel_size == (0.499, 0.499)
        difference = ours.read(500, 700, 500, 700).astype(int) - svs.read(500, 700, 500, 700)
        assert np.abs(difference).max() <= 3  # both decode the same JPEG tiles


# content, not name; refusals


def test_content_decides_and_the_name_is_noted(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    check(
        tmp_path / "a.jpg",
        picture(9, 9).transpose(2, 0, 1),
        notes=("it is named .jpg but holds PNG",),
    )


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (b"", Damaged, "empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            Refused,
            "git lfs pull",
        ),
        (b"hello there, this is text", Refused, "not an image"),
        (b"\0" * 128 + b"DICM" + b"\0" * 20, Refused, "DICOM"),
        (b"\x76\x2f\x31\x01" + b"\0" * 20, Refused, "OpenEXR"),
        (b"II*\0" + b"\xff" * 20, Damaged, "TIFF"),
        (b"\xff\xd8\xff\xe0", Damaged, "decoded"),
    ],
)
def test_what_is_no_image_is_said_to_be_none(tmp_path, content, error, reason):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(error, match=reason) as caught, open_image(tmp_path / "a.tif") as source:
        whole(source)
    assert str(tmp_path / "a.tif") in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_folders_and_wrong_selections_are_refused(tmp_path):
    with pytest.raises(Refused, match="no such file"):
        open_image(tmp_path / "a.png")
    with pytest.raises(Refused, match="no zarr"):
        open_image(tmp_path)
    with pytest.raises(Refused, match="no address of an object store"):
        open_image("gopher://bucket/a.tif")
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.png")
    with pytest.raises(Refused, match="--level"):
        open_image(tmp_path / "a.png", Selection(level=1))
    np.save(tmp_path / "o.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(Refused, match="objects"):
        open_image(tmp_path / "o.npy")
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((4, 4), np.complex64))
    with pytest.raises(Refused, match="complex64"):
        open_image(tmp_path / "c.tif")


def test_windows_beyond_the_image_are_refused(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as source, pytest.raises(Refused, match="not inside"):
        source.read(0, 10, 0, 9)


# identity


def test_identity_follows_content_and_selection_not_name_or_time(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    os.utime(tmp_path / "b.png", (1, 1))
    Image.fromarray(picture(9, 9, seed=1)).save(tmp_path / "c.png")
    same, copy, other = (
        open_image(tmp_path / name).identity for name in ("a.png", "b.png", "c.png")
    )
    assert same == copy != other
    json.dumps(same)
    stack = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    identities = [open_image(tmp_path / "a.tif", Selection(z=z)) for z in range(2)]
    for source in identities:
        source.close()
    assert identities[0].identity != identities[1].identity
    assert open_array(stack, "cyx").identity != open_array(stack + 1, "cyx").identity


def test_identity_of_large_files_is_told_by_their_ends_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr("tierscale.pipeline.formats.fingerprint.WHOLE_DIGEST", 0)
    monkeypatch.setattr("tierscale.pipeline.formats.fingerprint.END", 64)
    Image.fromarray(picture(30, 30)).save(tmp_path / "a.png")
    before = open_image(tmp_path / "a.png").identity
    assert before == open_image(tmp_path / "a.png").identity and "mtime_ns" in before
    os.utime(tmp_path / "a.png", (1, 1))
    assert before != open_image(tmp_path / "a.png").identity


def test_identity_of_a_zarr_changes_with_any_chunk(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 8), chunks=(4, 4), dtype="u1", compressors=None
    )
    array[:] = 1
    before = open_image(tmp_path / "a.zarr").identity
    assert before == open_image(tmp_path / "a.zarr").identity
    array[5, 5] = 2
    assert before != open_image(tmp_path / "a.zarr").identity


# memory


def test_too_large_for_the_allowance_is_refused_before_decoding_with_both_numbers(tmp_path):
    huge = (
        SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**30, 2**30, 16, 6, 0, 0, 1))
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(huge)
    with pytest.raises(Refused, match="--max-memory"):
        open_image(tmp_path / "a.png")
    Image.fromarray(picture(200, 300)).save(tmp_path / "a.jpg")
    with open_image(tmp_path / "a.jpg") as source:
        needed = source.decode_bytes
    open_image(tmp_path / "a.jpg", max_bytes=needed).close()
    with pytest.raises(Refused, match=rf"{needed} bytes .* {needed - 1} .*--max-memory {needed}"):
        open_image(tmp_path / "a.jpg", max_bytes=needed - 1)


PEAK = """
import sys
from tierscale.pipeline.formats.registry import open_image
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
with open_image(sys.argv[2]) as source:  # opens the libraries
    for _ in source.strips(): pass
open("/proc/self/clear_refs", "w").write("5")
before = peak()
with open_image(sys.argv[1]) as source:
    largest = 0
    for _, strip in source.strips():
        largest = max(largest, strip.nbytes)
    print(peak() - before, source.decode_bytes, largest)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux to measure peak memory"
)
@pytest.mark.parametrize(
    "form",
    [
        "jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "webp",
        "png",
        "interlaced.png",
        "strip.tif",
        "tiles.tif",
        "flat.tif",
        "zarr",
    ],
)
def test_decoding_takes_no_more_memory_than_announced(tmp_path, form):
    small, large = (tmp_path / f"{name}.{form}" for name in ("small", "large"))
    for path, size in ((small, 64), (large, 3000)):
        pixels = np.tile(picture(50, 64), (size // 50 + 1, size // 64, 1))
        image = Image.fromarray(pixels)
        if form.endswith("tif"):
            layout = {
                "strip": {"rowsperstrip": 10**6, "compression": "zlib"},
                "tiles": {"tile": (256, 256), "compression": "zlib"},
                "flat": {},
            }
            tifffile.imwrite(path, pixels, photometric="rgb", **layout[form.split(".")[0]])
        elif form == "zarr":
            zarr.create_array(str(path), data=pixels.transpose(2, 0, 1), chunks=(3, 256, 256))
        elif form == "interlaced.png":
            write_png(path, pixels[: 200 if size > 64 else 20].astype(np.uint16), 2, 8, True)
        else:
            (image.convert("CMYK") if "cmyk" in form else image).save(
                path, **({"progressive": True, "subsampling": 0} if "progressive" in form else {})
            )
    run = subprocess.run(
        [sys.executable, "-c", PEAK, large, small],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    taken, announced, strip = map(int, run.stdout.split())
    assert taken <= announced + 2 * strip + (
        12 << 20
    )  # the strips themselves, and what the allocator keeps


# facts


@settings(deadline=None)
@given(
    st.sampled_from([AREA, POINT]),
    st.fractions(Fraction(1, 3), 9),
    st.tuples(*[st.floats(-1000, 1000)] * 4),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_enlarging_moves_no_place_on_the_ground(keys, scale, tie, size_x, size_y):
    def ground(geo: dict[str, Any], x: float, y: float) -> np.ndarray:
        """The place of the corner at (x, y) pixels, by tie point and by matrix."""
        half = 0.5 if keys is POINT else 0.0
        i, j, _, east, north, _ = geo["ModelTiepoint"]
        by_tie = (
            east + (x - half - i) * geo["ModelPixelScale"][0],
            north - (y - half - j) * geo["ModelPixelScale"][1],
        )
        matrix = np.reshape(geo["ModelTransformation"], (4, 4))
        return np.array([*by_tie, *(matrix @ [x - half, y - half, 0, 1])[:2]])

    matrix = [size_x, 0.1, 0, tie[2], -0.2, -size_y, 0, tie[3], 0, 0, 1, 0, 0, 0, 0, 1]
    ties = [tie[0], tie[1], 0, tie[2], tie[3], 0]
    geo = {
        "GeoKeyDirectory": keys,
        "ModelPixelScale": [size_x, size_y, 0],
        "ModelTiepoint": ties,
        "ModelTransformation": matrix,
    }
    larger = scaled_geo(geo, float(scale))
    for x, y in ((0, 0), (17, 5), (100.5, 3.25)):
        np.testing.assert_allclose(
            ground(larger, x * float(scale), y * float(scale)),
            ground(geo, x, y),
            rtol=1e-7,
            atol=1e-5,
        )


def test_a_point_raster_by_hand():
    # Two pixels of 10 m whose centres lie at 0 and 10; four of 5 m have theirs at -2.5, 2.5, 7.5,
    # 12.5.
    geo = {
        "GeoKeyDirectory": POINT,
        "ModelPixelScale": [10, 10, 0],
        "ModelTiepoint": [0, 0, 0, 0, 0, 0],
    }
    larger = scaled_geo(geo, 2.0)
    i, _, _, east, _, _ = larger["ModelTiepoint"]
    assert [east + (x - i) * larger["ModelPixelScale"][0] for x in range(4)] == [
        -2.5,
        2.5,
        7.5,
        12.5,
    ]


@settings(deadline=None)
@given(st.fractions(Fraction(1, 2), 10))
def test_the_physical_size_of_the_picture_stays(scale):
    facts = PhotoMetadata(
        resolution=(300.0, 150.0),
        resolution_unit="inch",
        pixel_size=(0.5, 0.25),
        pixel_unit="micrometer",
        icc=b"x",
    )
    larger = facts.scaled(scale)
    assert larger.resolution == pytest.approx(
        (300 * scale, 150 * scale)
    ) and larger.pixel_size == pytest.approx((0.5 / scale, 0.25 / scale))
    assert larger.icc == b"x" and larger.resolution_unit == "inch"


def test_facts_go_through_json():
    facts = PhotoMetadata(
        icc=b"\0\1", exif=b"\xff", xmp=b"x", resolution=(1.5, 2.0), resolution_unit="inch", pixel_size=(1.0, 2.0), pixel_unit="micrometer",
        geo={"ModelPixelScale": [1.0, 2.0, 0.0], "GDAL_NODATA": "nan"}, channel_names=("a", "b"), channel_colours=("FF0000", "00FF00"),
        nodata=-1.0,
    )  # fmt: skip
    assert PhotoMetadata.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert (
        PhotoMetadata.from_json(json.loads(json.dumps(PhotoMetadata().to_json(), allow_nan=False)))
        == PhotoMetadata()
    )
    again = PhotoMetadata.from_json(
        json.loads(json.dumps(PhotoMetadata(nodata=float("nan")).to_json(), allow_nan=False))
    )
    assert again.nodata is not None and np.isnan(again.nodata)


def test_exif_is_kept_upright_and_without_what_is_no_longer_true(tmp_path):
    exif = Image.Exif()
    exif[274], exif[271], exif[315] = 6, "maker", "artist"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0xA002] = 9
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(picture(9, 12)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 150))
    with open_image(tmp_path / "a.jpg") as source:
        assert source.facts.exif is not None and source.facts.resolution == (150, 300)
        again = Image.Exif()
        again.load(b"Exif\0\0" + source.facts.exif)
        assert (again[274], again[271], again[315]) == (1, "maker", "artist")
        assert (
            dict(again.get_ifd(0x8769)) == {0x9003: "2020:01:01 00:00:00"}
            and again.get_ifd(0x8825)[1] == "N"
        )


# ingest


@pytest.mark.parametrize("form", ["png", "jpg", "tif"])
@pytest.mark.parametrize("chunk_size", [16, 37, 512])
def test_an_ingested_copy_is_the_same_source(tmp_path, form, chunk_size):
    path, copy = tmp_path / f"a.{form}", str(tmp_path / "copy.zarr")
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    image = Image.fromarray(picture(90, 70, 4 if form == "png" else 3))
    if form == "tif":
        tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (42113, "s", 0, "0", True)]
        tifffile.imwrite(
            path,
            np.asarray(image),
            compression="lzw",
            rowsperstrip=11,
            photometric="rgb",
            extratags=tags,
        )
    else:
        image.save(path, exif=exif, dpi=(100, 200))
    calls: list[tuple[int, int]] = []
    with open_image(path) as source:
        ingest(
            source, copy, chunk=chunk_size, progress=lambda done, total: calls.append((done, total))
        )
        with open_image(copy) as again:
            np.testing.assert_array_equal(whole(again), whole(source))
            for name in ("shape", "dtype", "colour", "alpha", "bits", "facts", "notes", "identity"):
                assert getattr(again, name) == getattr(source, name), name
            assert again.random_access
            assert zarr.open_array(copy).chunks == (source.shape[0], chunk_size, chunk_size)
        assert calls[-1] == (len(calls), len(calls)) == (-(-source.shape[1] // chunk_size),) * 2


def test_an_interrupted_ingest_is_seen_and_made_again(tmp_path):
    Image.fromarray(picture(90, 70)).save(tmp_path / "a.png")
    copy = str(tmp_path / "copy.zarr")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with open_image(tmp_path / "a.png") as source:
        with pytest.raises(KeyboardInterrupt):
            ingest(source, copy, chunk=16, progress=stop)
        with pytest.raises(Damaged, match="not finished"):
            open_image(copy)
        ingest(source, copy, chunk=16)
        with open_image(copy) as again:
            np.testing.assert_array_equal(whole(again), whole(source))
        before = os.stat(Path(copy) / "zarr.json").st_mtime_ns
        ingest(source, copy, chunk=16)
        assert os.stat(Path(copy) / "zarr.json").st_mtime_ns == before


def test_an_ingest_of_something_else_or_over_something_else(tmp_path):
    for seed, name in enumerate("ab"):
        Image.fromarray(picture(20, 30, seed=seed)).save(tmp_path / f"{name}.png")
    copy = str(tmp_path / "copy.zarr")
    with open_image(tmp_path / "a.png") as first, open_image(tmp_path / "b.png") as second:
        ingest(first, copy)
        with pytest.raises(Refused, match="copy of another image"):
            ingest(second, copy)
        with open_image(copy) as kept:
            np.testing.assert_array_equal(whole(kept), whole(first))
        ingest(second, copy, replaceable=True)
        with open_image(copy) as again:
            np.testing.assert_array_equal(whole(again), whole(second))
        zarr.create_array(str(tmp_path / "foreign.zarr"), shape=(4,), dtype="u1")
        (tmp_path / "letter.txt").write_text("dear")
        for foreign in ("foreign.zarr", "letter.txt"):
            with pytest.raises(Refused, match="no copy made by tierscale"):
                ingest(first, str(tmp_path / foreign))
        assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_damaged_source_leaves_no_copy(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", picture(64, 96), photometric="rgb", rowsperstrip=8, compression="zlib"
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.filehandle.seek(tif.pages.first.dataoffsets[6])
        tif.filehandle.write(b"\0" * 50)
    with open_image(tmp_path / "a.tif") as source, pytest.raises(Damaged, match="strip 6"):
        ingest(source, str(tmp_path / "copy.zarr"), chunk=16)
    assert not (tmp_path / "copy.zarr").exists()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 30))
def test_bands_are_regular_whatever_strips_come_in(heights, rows):
    total = sum(heights)
    array = np.arange(2 * total * 3, dtype=np.uint16).reshape(2, total, 3)
    source = open_array(array, "cyx")
    edges = [0, *itertools.accumulate(heights)]

    class Ragged:
        shape, dtype = source.shape, source.dtype

        def strips(self):
            yield from ((a, array[:, a:b]) for a, b in itertools.pairwise(edges))

    got = [(y, band.copy()) for y, band in bands(Ragged(), rows)]  # type: ignore[arg-type]
    assert [y for y, _ in got] == list(range(0, total, rows))
    np.testing.assert_array_equal(np.concatenate([band for _, band in got], axis=1), array)


def test_nothing_here_warns(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.jpg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_image(tmp_path / "a.jpg") as source:
            whole(source)
    assert not caught
