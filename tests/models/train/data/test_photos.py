"""Photos of a folder: which are read, refused, held back and drawn from."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.conftest import ROOT
from tierscale.models.train.data import photos as reading
from tierscale.models.train.data.photos import (
    Photo,
    centre_crop,
    digest,
    hold_out,
    image_files,
    image_sizes,
    photo,
    read_image,
    read_photos,
    read_watched,
)
from tierscale.models.train.data.shrink import shrink
from tierscale.pipeline.formats.png.stream import SIGNATURE, chunk

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(height: int, width: int, samples: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(
        0, np.iinfo(dtype).max, (height, width, samples), dtype
    )


def test_centre_crop_leaves_multiples() -> None:
    x = torch.arange(5 * 7).view(1, 5, 7)
    assert centre_crop(x, 4).tolist() == [
        [[1 + 7 * row + column for column in range(4)] for row in range(4)]
    ]


def test_a_photo_is_shrunk_as_its_floats_are() -> None:
    pixels = torch.from_numpy(noise(3, 45, 66))
    made = photo("a", pixels, 4)
    assert made.hr.shape == (3, 44, 64)
    torch.testing.assert_close(made.lr, shrink(centre_crop(pixels, 4) / 255, 4), rtol=0, atol=1e-6)


def test_watched_photos_are_not_trained_on() -> None:
    photos = [photo(str(index), torch.from_numpy(noise(3, 40, 40)), 2) for index in range(30)]
    trained, watched = hold_out(photos, 8)
    assert {p.name for p in trained}.isdisjoint({p.name for p in watched})
    assert len(trained) + len(watched) == 30


@pytest.mark.parametrize(
    ("height", "crop", "lower"), [(200, 10, 25), (64, 10, 10), (20, 10, 10), (16, 2, 4)]
)
def test_of_a_single_photo_the_lower_part_is_watched(height: int, crop: int, lower: int) -> None:
    whole = Photo(
        "a",
        torch.arange(2 * height).expand(3, 6, -1).mT,
        torch.arange(float(height)).expand(3, 3, -1).mT,
    )
    (upper,), (seen,) = hold_out([whole], crop)
    assert seen.lr.shape[-2] == lower
    assert seen.hr.shape[-2] == 2 * lower
    assert torch.equal(torch.cat([upper.lr, seen.lr], dim=-2), whole.lr)
    assert torch.equal(torch.cat([upper.hr, seen.hr], dim=-2), whole.hr)


def test_a_single_photo_too_small_to_cut_is_both() -> None:
    whole = photo("a", torch.from_numpy(noise(3, 38, 80)), 2)
    assert hold_out([whole], 10) == ([whole], [whole])


def test_a_folder_that_gives_no_images_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"")
    for name, said in (
        ("none", "there is no folder"),
        ("file", "is a file"),
        ("empty", "is empty"),
        ("texts", "holds no image files"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            image_files(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_hidden_files_and_folders_named_like_images_are_passed_over(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".c.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "x.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG"]


def png16(path: Path, samples: int) -> None:
    """A 16-bit PNG of 1 to 4 samples a pixel."""
    pixels = noise(5, 6, samples, np.uint16)
    header = struct.pack(">IIBBBBB", 6, 5, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    for samples in (1, 2, 3, 4):
        png16(tmp_path / f"{samples}.png", samples)
    deep = noise(5, 6, 3, np.uint16)
    tifffile.imwrite(tmp_path / "rgb.tif", deep, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "planes.tif",
        deep.transpose(2, 0, 1).copy(),
        photometric="rgb",
        planarconfig="separate",
    )
    tifffile.imwrite(tmp_path / "grey.tif", deep[..., 0])
    tifffile.imwrite(tmp_path / "float.tif", deep[..., 0].astype(np.float32))
    Image.fromarray(deep[..., 0].astype(np.int32)).save(tmp_path / "int.tif")
    files = image_files(tmp_path)
    assert len(files) == 9
    for path in files:
        with pytest.raises(ValueError, match="convert it to 8 bits") as caught:
            read_image(path)
        assert str(path) in str(caught.value)


def test_eight_bits_are_read_as_rgb_whatever_their_mode(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    picture = Image.fromarray(pixels)
    grey = picture.convert("L")
    palette = picture.quantize(16)
    clear = picture.copy()
    clear.putalpha(grey)
    stored = {
        "rgb.png": picture,
        "rgba.png": clear,
        "grey.png": grey,
        "palette.png": palette,
        "one.png": grey.convert("1"),
        "rgb.bmp": picture,
    }
    stored |= {
        "rgb.bmp": picture,
        "la.png": grey.convert("LA"),
        "cmyk.tif": picture.convert("CMYK"),
        "grey.tif": grey,
        "palette.tif": palette,
    }
    wanted = {**stored, "rgba.png": picture, "la.png": grey}
    for name, image in stored.items():
        image.save(tmp_path / name)
    for name, image in wanted.items():
        assert np.array_equal(
            read_image(tmp_path / name).permute(1, 2, 0).numpy(), np.array(image.convert("RGB"))
        ), name
    tifffile.imwrite(
        tmp_path / "planes.tif",
        pixels.transpose(2, 0, 1).copy(),
        photometric="rgb",
        planarconfig="separate",
    )
    assert np.array_equal(read_image(tmp_path / "planes.tif").permute(1, 2, 0).numpy(), pixels)


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    Image.fromarray(noise(40, 40)).save(tmp_path / "a.png")
    (tmp_path / "short.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    (tmp_path / "none.jpg").write_bytes(b"nothing")
    (tmp_path / "none.tif").write_bytes(b"II*\0")
    for name in ("short.png", "none.jpg", "none.tif"):
        with pytest.raises(ValueError, match=f"{name} cannot be decoded"):
            read_image(tmp_path / name)


def test_scans_above_pillows_limit_are_read_and_the_limit_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png").shape == (3, 40, 50)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_more_than_half_of_the_memory_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        Image.fromarray(noise(200, 300)).save(tmp_path / f"{name}.png")
    # 3 bytes and 12/16 for each pixel of three photos, and for a while 11 for one.
    needed = 200 * 300 * (3 * 3.75 + 11)
    monkeypatch.setattr(reading, "machine_memory", lambda: 2 * needed)
    assert len(read_photos(tmp_path, 4, 8)) == len(read_watched(tmp_path, 4)) == 3
    monkeypatch.setattr(reading, "machine_memory", lambda: 2 * needed - 2)
    monkeypatch.setattr(reading, "read_image", lambda path: pytest.fail("decoded"))
    for read in (lambda: read_photos(tmp_path, 4, 8), lambda: read_watched(tmp_path, 4)):
        with pytest.raises(ValueError, match="cut the scans into pieces"):
            read()


def test_a_large_scan_is_shrunk_in_little_more_than_its_own_memory() -> None:
    """In a process of its own, 48 megapixels take their 144 MB, 36 MB shrunk.

    And no more than a strip at a time.
    """
    code = (
        "import torch; from tests.memory import peak;"
        "from tierscale.models.train.data.photos import photo;"
        "torch.set_num_threads(1);"
        "photo('a', torch.zeros(3, 99, 99).byte(), 4);"
        "before = peak();"
        "photo('a', torch.zeros(3, 6000, 8000, dtype=torch.uint8), 4); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 144_000_000 < int(done.stdout) < 300 * 2**20


def test_a_watched_image_too_small_to_be_measured_is_named(tmp_path: Path) -> None:
    Image.fromarray(noise(15, 80)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png of 80x15 pixels .* 16 a side"):
        read_watched(tmp_path, 4)


def test_a_digest_follows_names_sizes_and_their_order(tmp_path: Path) -> None:
    for name, side in (("a", 20), ("b", 30)):
        Image.fromarray(noise(side, 40)).save(tmp_path / f"{name}.png")
    sizes = image_sizes(tmp_path)
    assert sizes == {tmp_path / "a.png": (20, 40), tmp_path / "b.png": (30, 40)}
    others = [
        dict(reversed(sizes.items())),
        {tmp_path / "a.png": (20, 40)},
        {**sizes, tmp_path / "b.png": (40, 30)},
    ]
    assert len({digest(one) for one in (sizes, *others)}) == 4
    assert digest(sizes).startswith("2 images ")
