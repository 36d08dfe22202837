"""What a source states is in the output, or a note names it; nothing false is written.

One statement a case: what is put into a small source, and where it has to be afterwards.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.pipeline.formats.pictures import picture, write_png
from tests.pipeline.output.export.sample import ICC
from tierscale.jobs.cli.main import main
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.png.stream import chunk
from tierscale.pipeline.formats.registry import open_image

IPTC = b"\x1c\x02\x19\x00\x0cshelfmark 12"
XMP = b'<x:xmpmeta tiff:ImageWidth="32" tiff:Orientation="1">shelfmark 12</x:xmpmeta>'
TEXT = "© Köln".encode()
PHOTOSHOP = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"
Check = Callable[[PhotoMetadata], Any]


@dataclass(frozen=True)
class Case:
    """A statement in a source. write: makes the file. kept: whether metadata of the output hold it;
    None: it is not kept, and a note names it by the word `named`.
    """

    write: Callable[[Path], None]
    kept: Check | None = None
    named: str = ""


def png(*chunks):
    return lambda path: write_png(path, picture(24, 32), 2, 8, False, b"".join(chunks))


def tiff(*tags, **options):
    kind = {"photometric": "rgb", "metadata": None, "extratags": tags, **options}
    return lambda path: tifffile.imwrite(path, picture(24, 32), **kind)


def jpeg(*parts, **options):
    def write(path):
        file = io.BytesIO()
        Image.fromarray(picture(24, 32)).save(file, "JPEG", **options)
        data = file.getvalue()
        extra = b"".join(struct.pack(">BBH", 255, kind, len(b) + 2) + b for kind, b in parts)
        path.write_bytes(data[:2] + extra + data[2:])

    return write


def exif(**tags):
    block = Image.Exif()
    for name, value in tags.items():
        block[{"copyright": 33432, "x": 282, "y": 283, "orientation": 274}[name]] = value
    return block.tobytes()


def text_of(metadata):
    return TEXT in metadata.exif


CASES = {
    "PNG profile": Case(png(chunk(b"iCCP", b"x\0\0" + zlib.compress(ICC))), lambda m: m.icc == ICC),
    "PNG gamma": Case(png(chunk(b"gAMA", struct.pack(">I", 100000))), lambda m: m.icc),
    "PNG sRGB": Case(png(chunk(b"sRGB", b"\0")), lambda m: m.srgb),
    "PNG P3": Case(png(chunk(b"cICP", bytes((12, 13, 0, 1)))), lambda m: m.icc),
    "PNG bits": Case(png(chunk(b"sBIT", bytes((5, 6, 5)))), named="sBIT"),
    "PNG density": Case(
        png(chunk(b"pHYs", struct.pack(">IIB", 1000, 1000, 1))), lambda m: m.resolution == (40, 40)
    ),
    "PNG oblong": Case(
        png(chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0))),
        lambda m: m.resolution[0] == 2 * m.resolution[1] and m.resolution_unit is None,
    ),
    "PNG XMP": Case(
        png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)), lambda m: b"12<" in m.xmp
    ),
    "PNG author": Case(png(chunk(b"tEXt", b"Author\0A. Maker")), named="Author"),
    "PNG scale": Case(png(chunk(b"sCAL", b"\x011\x001")), named="sCAL"),
    "PNG EXIF": Case(png(chunk(b"eXIf", exif(copyright=TEXT)[6:])), text_of),
    "JPEG EXIF": Case(jpeg(exif=exif(copyright=TEXT)), text_of),
    "JPEG density": Case(
        jpeg(exif=exif(x=300, y=300)), lambda m: round(m.resolution[0] * 2.54) == 1200
    ),
    "JPEG IPTC": Case(jpeg((0xED, PHOTOSHOP)), lambda m: m.iptc == IPTC),
    "JPEG XMP": Case(
        jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), lambda m: b"12<" in m.xmp
    ),
    "JPEG comment": Case(jpeg((0xFE, b"scanned by A.")), named="comment"),
    "JPEG more XMP": Case(
        jpeg((0xE1, b"http://ns.adobe.com/xmp/extension/\0abc")), named="extended XMP"
    ),
    "TIFF caption": Case(tiff(description=TEXT), text_of),
    "TIFF artist": Case(tiff((315, "s", 0, TEXT, True)), text_of),
    "TIFF document": Case(tiff((269, "s", 0, TEXT, True)), text_of),
    "TIFF XMP": Case(tiff((700, "B", len(XMP), XMP, True)), lambda m: b"12<" in m.xmp),
    "TIFF IPTC": Case(tiff((33723, "B", len(IPTC), IPTC, True)), lambda m: m.iptc == IPTC),
    "TIFF private": Case(tiff((65123, "H", 1, 7, True)), named="65123"),
    "TIFF RPC": Case(
        tiff((50844, "d", 92, (1.0,) * 92, True)), lambda m: len(m.geo["RPCCoefficient"]) == 92
    ),
    "TIFF no-data": Case(tiff((42113, "s", 0, "0", True)), lambda m: m.nodata == 0),
    "TIFF density": Case(
        tiff(resolution=(10, 10), resolutionunit=3), lambda m: m.resolution == (40, 40)
    ),
    "TIFF scientific": Case(tiff(description="Aperio Image Library v1|MPP = 0.5"), named="Aperio"),
}


def enlarged(tmp_path, write, form):
    """(summary, metadata) of a source that was enlarged four times into a TIFF or PNG."""
    source, out = tmp_path / "a.bin", tmp_path / f"out.{form}"
    write(source)
    summary = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.stdout", summary)
        main(["upscale", str(source), str(out), "--tiers", "bicubic", "--ray", "none", "--json"])
    assert not ended.value.code, summary.getvalue()
    with open_image(out) as image:
        assert image.shape[1:] == (96, 128)
        return json.loads(summary.getvalue()), image.metadata


@pytest.mark.parametrize("name", CASES)
def test_a_statement_is_in_the_output_or_named(tmp_path, name):
    case = CASES[name]
    form = "tif" if name.startswith("TIFF") else "png"
    summary, metadata = enlarged(tmp_path, case.write, form)
    if case.kept is None:
        assert any(case.named in note for note in summary["notes"]), summary["notes"]
    else:
        assert case.kept(metadata)
        assert summary["notes"] == []
    assert not any("damaged" in note for note in summary["notes"])
    assert b"ImageWidth" not in (metadata.xmp or b"")


def test_a_source_that_states_nothing_has_an_output_that_states_nothing(tmp_path):
    for form in ("png", "tif"):
        summary, metadata = enlarged(tmp_path, png(), form)
        assert summary["notes"] == []
        stated = metadata.icc, metadata.xmp, metadata.resolution, metadata.geo, metadata.pixel_size
        assert stated == (None,) * 5 and np.isnan(metadata.nodata or np.nan)
        (tmp_path / f"out.{form}").unlink()
