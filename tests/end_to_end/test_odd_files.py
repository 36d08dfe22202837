"""Every odd and every bad file of the reference set, opened and read to its end under limits on
memory and time.

The expectations below are those of the set's README, made definite. A worker process with a limit
on its address space does the reading; it is shared by all files and replaced if one of them kills
or hangs it.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.conftest import ROOT
from tierscale.pipeline.formats.registry import open_image

SECONDS = 20
ADDRESS_SPACE = 4 << 30
# What one file may take of memory beyond what the source announces and one strip: libraries that
# are loaded on first use.
SLACK = 64 << 20
ALLOWED = 1 << 30

WORKER = """
import json, os, resource, sys, time, warnings
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from tests.memory import peak
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
FIELDS = "shape", "colour", "alpha", "bits", "random_access", "decode_bytes", "notes"
def look(path):
    open("/proc/self/clear_refs", "w").write("5")
    before, started, report = peak(), time.monotonic(), {}
    opened.clear()
    try:
        with open_image(path, max_bytes=int(sys.argv[2])) as source:
            report = {name: getattr(source, name) for name in FIELDS}
            rows, strip_bytes, low, high = 0, 0, float("inf"), float("-inf")
            for y, strip in source.strips():
                assert y == rows and strip.shape[::2] == source.shape[::2]
                rows, strip_bytes = rows + strip.shape[1], max(strip_bytes, strip.nbytes)
                low, high = min(low, float(strip.min())), max(high, float(strip.max()))
            report |= {"dtype": str(source.dtype), "rows": rows, "strip_bytes": strip_bytes}
            report |= {"range": [low, high], "outcome": "read"}
            report |= {"nodata": source.metadata.nodata, "pixel_size": source.metadata.pixel_size}
    except (Refused, Damaged) as error:
        report |= {"outcome": type(error).__name__, "error": str(error)}
    except BaseException as error:
        report |= {"outcome": "broken", "error": repr(error)}
    files = [path for path in opened if not path.startswith("/proc")]
    seconds = time.monotonic() - started
    return report | {"seconds": seconds, "taken": peak() - before, "opened": files}
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(look(line.rstrip("\\n"))), flush=True)
"""


class Worker:
    """The process that looks at files; one line for each question, one line of JSON for the answer,
    within `seconds`.
    """

    seconds = SECONDS

    def command(self) -> list[str]:
        """How the process is started."""
        return [sys.executable, "-c", WORKER, str(ADDRESS_SPACE), str(ALLOWED)]

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """The running process, started anew if there is none."""
        if self.process is None or self.process.poll() is not None:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                self.command(),
                stdin=pipe,
                stdout=pipe,
                text=True,
                cwd=ROOT,
                bufsize=1,
            )
            assert self.answer(self.process, 60) == "ready\n"
        return self.process

    @staticmethod
    def answer(process: subprocess.Popen[str], seconds: float) -> str:
        """The next line, or nothing if none comes in time."""
        assert process.stdout is not None
        return (
            process.stdout.readline() if select.select([process.stdout], [], [], seconds)[0] else ""
        )

    def look(self, question: object) -> dict[str, Any]:
        """What the worker says, such as of the file at a path."""
        process = self.start()
        assert process.stdin is not None
        process.stdin.write(f"{question}\n")
        started = time.monotonic()
        line = self.answer(process, self.seconds)
        if not line:
            self.stop()
            pytest.fail(
                f"{question}: the worker gave no answer after {time.monotonic() - started:.1f} s:"
                " it hung or was killed"
            )
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
            self.process = None


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.stop()


@dataclass(frozen=True)
class Valid:
    """What a good file must be: (channels, y, x), type, colour, part of a note."""

    shape: tuple[int, int, int]
    dtype: str
    colour: str
    note: str = ""
    bits: int | None = None


VALID = {
    "alpha.webp": Valid((4, 150, 200), "uint8", "rgba"),
    "animated_350k.apng": Valid((4, 245, 245), "uint8", "rgba", "41 frames"),
    "bigtiff.tif": Valid((3, 128, 128), "uint8", "rgb"),
    "bilevel_g4_orientation_6.tif": Valid((1, 88, 590), "uint8", "grey", "upright"),
    "broken_exif_good_pixels.jpg": Valid((1, 500, 500), "uint8", "grey"),
    "cielab.tif": Valid((3, 10, 10), "uint8", "rgb", "L*a*b*"),
    "cmyk_adobe.jpg": Valid((3, 100, 100), "uint8", "rgb", "CMYK"),
    "cmyk_jpeg_tiled.tif": Valid((3, 100, 100), "uint8", "rgb", "CMYK"),
    "dem_float32_nodata.cog": Valid((1, 1998, 2581), "float32", "grey"),
    "exif_orientation_6_landscape.jpg": Valid((3, 1200, 1800), "uint8", "rgb", "upright"),
    "geotiff_rgb_nodata.tif": Valid((3, 718, 791), "uint8", "rgb"),
    "gray.jpg": Valid((1, 128, 128), "uint8", "grey"),
    "gray12_packed.tif": Valid((1, 100, 100), "uint16", "grey", bits=12),
    "gray16.jp2": Valid((1, 64, 64), "uint16", "grey"),
    "gray16.pgm": Valid((1, 128, 128), "uint16", "grey"),
    "gray16_bigendian_deflate.tif": Valid((1, 64, 64), "uint16", "grey"),
    "gray16_linear_2267x1513.png": Valid((1, 1513, 2267), "uint16", "grey"),
    "gray_float32_predictor3.tif": Valid((1, 200, 200), "float32", "grey"),
    "imagej_rgb16_12bit_range.tif": Valid((3, 512, 672), "uint16", "channels", "separate channels"),
    "multichannel_zstack_int8.ome.tif": Valid((3, 167, 439), "float32", "channels", "z=0 of 5"),
    "multipage.tiff": Valid((3, 10, 10), "uint8", "rgb", "image 0 of 3"),
    "old_style_jpeg.tif": Valid((3, 870, 4160), "uint8", "rgb"),
    "one_pixel.png": Valid((3, 1, 1), "uint8", "rgb"),
    "orientation_6.avif": Valid((3, 4032, 3024), "uint8", "rgb"),
    "palette.png": Valid((3, 442, 290), "uint8", "rgb", "palette"),
    "png_named_as.jpg": Valid((4, 128, 128), "uint8", "rgba", "named .jpg but holds PNG"),
    "rgb16_planar_strips.tiff": Valid((3, 40, 100), "uint16", "rgb"),
    "rgba.png": Valid((4, 128, 128), "uint8", "rgba"),
    "stereo_two_images.mpo": Valid((3, 480, 640), "uint8", "rgb", "image 0 of 2"),
    "thin_20000x3.png": Valid((1, 3, 20000), "uint8", "grey"),
    "bad/ifd_loop.tif": Valid((1, 16, 16), "uint8", "grey"),
    "bad/ome_points_to_other_files.ome.tif": Valid((1, 16, 16), "uint8", "grey"),
    # Valid and read in rows, so that neither its size nor its 450 MB of scan lines are ever in
    # memory.
    "bad/bomb_60000x60000_1bit.png": Valid((1, 60000, 60000), "uint8", "grey"),
}
# How a file is turned away, and a word of the reason.
BAD = {
    "dicom_gray.dcm": ("Refused", "DICOM"),
    "hdr_float.exr": ("Refused", "OpenEXR"),
    "bad/bomb_17000x17000.avif": ("Damaged", "cannot identify"),
    "bad/broken.png": ("Damaged", "header"),
    "bad/broken_data_stream.png": ("Damaged", "PNG"),
    "bad/cog_corrupt_tile.tif": ("Damaged", "tile or strip 3"),
    "bad/decompression_bomb.gif": ("Refused", "--max-memory"),
    "bad/empty.png": ("Damaged", "empty"),
    "bad/fli_overflow.fli": ("Refused", "FLI"),
    "bad/fuzz_crash_1.tif": ("Damaged", "cut short"),
    "bad/fuzz_crash_2.tif": ("Damaged", "0 x 257"),
    "bad/lfs_pointer.tif": ("Refused", "git lfs pull"),
    "bad/oom_88_bytes.tif": ("Damaged", "directory"),
    "bad/svs_cut_short.svs": ("Damaged", "cut short"),
    "bad/text_not_image.tif": ("Refused", "not an image"),
    "bad/tiff_overflow_rows_per_strip.tif": ("Damaged", "strip 0"),
    "bad/truncated_image.png": ("Damaged", "cut short"),
    "bad/truncated_jpeg.jpg": ("Damaged", "truncated"),
}


def test_no_file_of_the_set_is_left_out(shared):
    folder = shared / "data/odd"
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".md"
    }
    assert found == VALID.keys() | BAD.keys()


@pytest.mark.parametrize("name", VALID)
def test_an_odd_file_is_read_as_what_it_is(shared, worker, name):
    report, wanted = worker.look(shared / "data/odd" / name), VALID[name]
    assert report["outcome"] == "read", report
    assert (tuple(report["shape"]), report["dtype"], report["colour"], report["bits"]) == (
        wanted.shape,
        wanted.dtype,
        wanted.colour,
        wanted.bits,
    )
    assert report["rows"] == wanted.shape[1] and any(
        wanted.note in note for note in ["", *report["notes"]] if wanted.note or not note
    )
    assert report["taken"] <= report["decode_bytes"] + 2 * report["strip_bytes"] + SLACK
    assert report["alpha"] == ("straight" if wanted.colour == "rgba" else None)
    assert {
        path
        for path in report["opened"]
        if os.path.isabs(path) and "site-packages" not in path and "/lib/python" not in path
    } <= {str(shared / "data/odd" / name)}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_turned_away_in_one_sentence(shared, worker, name):
    report, (outcome, reason) = worker.look(shared / "data/odd" / name), BAD[name]
    assert report["outcome"] == outcome, report
    assert reason in report["error"] and name in report["error"] and "\n" not in report["error"]
    assert report["taken"] <= SLACK and report["seconds"] < 5


def pixels(path: Path) -> np.ndarray:
    with open_image(path) as source:
        return source.read(0, source.shape[1], 0, source.shape[2])


def test_values_of_the_odd_files_are_right(shared):
    odd = shared / "data/odd"
    fax = pixels(odd / "bilevel_g4_orientation_6.tif")
    assert set(np.unique(fax)) == {0, 255} and (fax == 255).mean() > 0.7  # black text on white
    assert (pixels(odd / "cielab.tif") == 255).all()  # L is 100, a and b are 0
    for name in ("cmyk_adobe.jpg", "cmyk_jpeg_tiled.tif"):
        with Image.open(odd / name) as image:
            expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)
        assert np.abs(pixels(odd / name) - expected).max() <= 1
    assert pixels(odd / "gray12_packed.tif").max() <= 4095
    with Image.open(odd / "gray12_packed.tif") as image:
        np.testing.assert_array_equal(pixels(odd / "gray12_packed.tif")[0], np.asarray(image))
    np.testing.assert_array_equal(
        pixels(odd / "gray16_bigendian_deflate.tif"), pixels(odd / "gray16.jp2")
    )
    np.testing.assert_array_equal(
        pixels(odd / "rgb16_planar_strips.tiff"), tifffile.imread(odd / "rgb16_planar_strips.tiff")
    )
    np.testing.assert_array_equal(pixels(odd / "rgba.png"), pixels(odd / "png_named_as.jpg"))
    np.testing.assert_array_equal(
        pixels(odd / "multichannel_zstack_int8.ome.tif"),
        tifffile.imread(odd / "multichannel_zstack_int8.ome.tif")[:, 0],
    )


def test_no_data_is_told_apart_from_heights(shared):
    with open_image(shared / "data/odd/dem_float32_nodata.cog") as source:
        assert source.metadata.nodata == np.float32(3.4028234663852886e38)
        heights = source.read(0, *source.shape[1:2], 0, source.shape[2])
    real = heights[heights != np.float32(source.metadata.nodata)]
    assert 0 < real.size < heights.size and -5000 < real.min() < real.max() < 9000


def test_orientation_six_is_upright(shared):
    with Image.open(shared / "data/odd/exif_orientation_6_landscape.jpg") as image:
        expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1)
    np.testing.assert_array_equal(
        pixels(shared / "data/odd/exif_orientation_6_landscape.jpg"), expected
    )
