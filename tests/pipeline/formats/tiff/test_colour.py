"""What samples of a TIFF become: few bits, and YCbCr as its tags define it."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import picture, whole
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.registry import open_image


def few_bits(path, samples, bits, planar=False, **tags):
    """A TIFF of samples (y, x, s) packed to `bits`, by planes or pixels; tags: photometric..."""
    groups = samples.transpose(2, 0, 1)[..., None] if planar else samples[None]
    rows = b""
    for group in groups:
        plain = np.unpackbits(group.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows += np.packbits(plain.reshape(len(samples), -1), axis=-1).tobytes()
    count, length = samples.shape[2], len(rows) // len(groups)
    height, width = samples.shape[:2]
    entries = [
        (256, 3, (width,)),
        (257, 3, (height,)),
        (258, 3, (bits,) * count),
        (259, 3, (1,)),
        (262, 3, (tags.get("photometric", 2),)),
        (273, 4, tuple(range(8, 8 + len(rows), length))),
        (277, 3, (count,)),
        (278, 3, (height,)),
        (279, 4, (length,) * len(groups)),
        (284, 3, (2 if planar else 1,)),
    ]
    if tags.get("extra"):
        entries.append((338, 3, (tags["extra"],)))
    start = 8 + len(rows) + len(rows) % 2
    behind = start + 2 + 12 * len(entries) + 4
    directory, values = len(entries).to_bytes(2, "little"), b""
    for code, kind, numbers in entries:
        data = b"".join(n.to_bytes({3: 2, 4: 4}[kind], "little") for n in numbers)
        directory += code.to_bytes(2, "little") + kind.to_bytes(2, "little")
        directory += len(numbers).to_bytes(4, "little")
        place = (behind + len(values)).to_bytes(4, "little")
        directory += data.ljust(4, b"\0") if len(data) <= 4 else place
        values += data if len(data) > 4 else b""
    head = b"II*\0" + start.to_bytes(4, "little")
    padding = b"\0" * (len(rows) % 2)
    path.write_bytes(head + rows + padding + directory + bytes(4) + values)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_colours_of_few_bits_are_spread_over_the_whole_range(tmp_path, bits, planar):
    top = 2**bits - 1
    samples = np.random.default_rng(bits).integers(0, top + 1, (12, 17, 3))
    few_bits(tmp_path / "a.tif", samples, bits, planar)
    with open_image(tmp_path / "a.tif") as source:
        assert source.colour == "rgb" and source.bits is None and source.dtype == np.uint8
        assert (whole(source) == np.rint(samples / top * 255).transpose(2, 0, 1)).all()
        assert source.notes == (f"{bits}-bit samples were spread to 0..255",)


@pytest.mark.parametrize(
    ("photometric", "count", "extra", "wanted"),
    [
        (1, 2, 2, lambda v: v * 17),
        (0, 2, 2, lambda v: np.concatenate([255 - v[..., :1] * 17, v[..., 1:] * 17], axis=-1)),
        (2, 4, 2, lambda v: v * 17),
        (1, 5, None, lambda v: v * 17),
        (5, 4, None, lambda v: np.rint((255 - v[..., :3] * 17) * (255 - v[..., 3:] * 17) / 255)),
    ],
)
def test_every_kind_of_few_bits_is_spread(tmp_path, photometric, count, extra, wanted):
    samples = np.random.default_rng(count).integers(0, 16, (9, 14, count))
    few_bits(tmp_path / "a.tif", samples, 4, photometric=photometric, extra=extra)
    with open_image(tmp_path / "a.tif") as source:
        assert (whole(source) == wanted(samples).transpose(2, 0, 1)).all()


PATCHES = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [64, 200, 100], [0, 0, 255]])


def coded(rgb, luma, reference, top):
    """RGB 0..1 as YCbCr with these shares and reference values (TIFF 6.0, sections 20 and 21)."""
    y = rgb @ np.array(luma)
    cb, cr = (rgb[:, 2] - y) / (2 - 2 * luma[2]), (rgb[:, 0] - y) / (2 - 2 * luma[0])
    half = (top + 1) // 2 - 1
    spans = (1, half / top, half / top)
    stored = [
        value / span * (reference[2 * i + 1] - reference[2 * i]) + reference[2 * i]
        for i, (value, span) in enumerate(zip((y, cb, cr), spans, strict=True))
    ]
    return np.rint(np.clip(np.stack(stored, axis=-1), 0, top))


def ycbcr_tiff(path, samples, dtype, tags):
    """A YCbCr TIFF without subsampling; tags: {code: fractions}."""
    extra = [(530, "H", 2, (1, 1), True)]
    for code, values in tags.items():
        pairs = [n for value in values for n in (round(value * 10000), 10000)]
        extra.append((code, "2I", len(values), tuple(pairs), True))
    image = samples.astype(dtype)[None].repeat(8, axis=0)
    tifffile.imwrite(path, image, photometric="ycbcr", extratags=extra, metadata=None)


LUMA = {601: (0.299, 0.587, 0.114), 709: (0.2126, 0.7152, 0.0722)}
RANGES = {"full": (0, 255, 128, 255, 128, 255), "video": (16, 235, 128, 240, 128, 240)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("luma", LUMA)
@pytest.mark.parametrize("span", RANGES)
def test_ycbcr_is_read_as_its_tags_define_it(tmp_path, luma, span, dtype):
    top = int(np.iinfo(dtype).max)
    reference = tuple(value * (top + 1) // 256 for value in RANGES[span])
    reference = tuple(top if value == 255 * (top + 1) // 256 else value for value in reference)
    stored = coded(PATCHES / 255, LUMA[luma], reference, top)
    tags = {529: LUMA[luma]} if luma == 709 else {}
    if span == "video":
        tags[532] = tuple(float(value) for value in reference)
    ycbcr_tiff(tmp_path / "a.tif", stored, dtype, tags)
    with open_image(tmp_path / "a.tif") as source:
        found = whole(source)[:, 0].T / top * 255
        assert np.abs(found - PATCHES).max() <= 3, found


@pytest.mark.parametrize(
    "tags", [{532: (0.0, 0.0, 128.0, 255.0, 128.0, 255.0)}, {529: (0.0, 0.0, 0.0)}]
)
def test_impossible_ycbcr_is_damaged(tmp_path, tags):
    ycbcr_tiff(tmp_path / "a.tif", PATCHES, np.uint8, tags)
    with pytest.raises(Damaged, match="YCbCr"):
        open_image(tmp_path / "a.tif")


def test_ycbcr_of_few_bits_is_refused(tmp_path):
    few_bits(tmp_path / "a.tif", np.zeros((4, 4, 3), int), 4, photometric=6)
    with pytest.raises(Refused, match=r"YCbCr .* not"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 16}])
def test_jpeg_of_each_sample_by_itself_is_read(tmp_path, photometric, layout):
    """GDAL's INTERLEAVE=BAND: every tile is a grey JPEG of one sample."""
    planes = picture(64, 96).transpose(2, 0, 1)
    coded = [
        imagecodecs.jpeg_encode(np.ascontiguousarray(tile), level=98)
        for plane in planes
        for tile in cut(plane, *layout.get("tile", (16, 96)))
    ]
    tifffile.imwrite(
        tmp_path / "a.tif", iter(coded), shape=(3, 64, 96), dtype=np.uint8, compression="jpeg",
        photometric=photometric, planarconfig="separate", subsampling=(1, 1), metadata=None,
        **layout,
    )  # fmt: skip
    with open_image(tmp_path / "a.tif") as source:
        found = whole(source).astype(int)
    expected = planes
    if photometric == "ycbcr":
        expected = arithmetic.from_ycbcr(planes.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert np.abs(found - expected).max() <= (8 if photometric == "ycbcr" else 4)


def cut(plane, high, wide):
    """The tiles of a plane, row by row; beyond its edges they repeat them."""
    down, across = -plane.shape[0] % high, -plane.shape[1] % wide
    full = np.pad(plane, ((0, down), (0, across)), mode="edge")
    for y in range(0, full.shape[0], high):
        for x in range(0, full.shape[1], wide):
            yield full[y : y + high, x : x + wide]


@pytest.mark.parametrize(
    ("photometric", "code", "value", "words"),
    [("ycbcr", 530, (2, 2), "subsampling of 2 x 2"), ("rgb", 317, 99, "99")],
)
def test_what_no_decoder_knows_is_refused_before_any_work(
    tmp_path, photometric, code, value, words
):
    coding = {"compression": "zlib", "predictor": True} if photometric == "rgb" else {}
    tifffile.imwrite(
        tmp_path / "a.tif", picture(32, 48), photometric=photometric, metadata=None, **coding
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages.first.tags[code].overwrite(value)
    with pytest.raises(Refused, match=words) as raised:
        open_image(tmp_path / "a.tif")
    assert "damaged" not in str(raised.value) and "fetch" not in str(raised.value)
