"""Content decides the format, every refusal says why, and memory is checked before decoding."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.conftest import ROOT
from tests.pipeline.formats.pictures import check, picture, whole, write_png
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.png.stream import SIGNATURE, chunk
from tierscale.pipeline.formats.registry import is_output, open_image
from tierscale.pipeline.plan.options import Selection


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
    with pytest.raises(Refused, match="not a zarr"):
        open_image(tmp_path)
    with pytest.raises(Refused, match="not an address of an object store"):
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
    both = rf"{needed} bytes, but only {needed - 1} bytes .* --max-memory {needed} "
    with pytest.raises(Refused, match=both):
        open_image(tmp_path / "a.jpg", max_bytes=needed - 1)


PEAK = """
import sys
from tests.memory import peak
from tierscale.pipeline.formats.registry import open_image
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
        cwd=ROOT,
    )
    used, announced, strip = map(int, run.stdout.split())
    assert used <= announced + 2 * strip + (
        12 << 20
    )  # the strips themselves, and what the allocator keeps


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("theirs.zarr", False),
        ("ours.zarr", True),
        ("ours.zarr/", True),
        ("ours.zarr.tierscale", True),
        ("a.tif", False),
        ("a.tierscale/b.tif", False),
    ],
)
def test_outputs_of_ours_are_known_by_the_folder_beside_them(tmp_path, path, ours):
    for name in ("theirs.zarr", "ours.zarr", "ours.zarr.tierscale"):
        (tmp_path / name).mkdir()
    assert is_output(f"{tmp_path}/{path}") == ours
