"""Every PNG comes back, and a PNG cut or changed anywhere is refused."""

import struct
import zlib

import numpy as np
import pytest

from tests.pipeline.formats.pictures import check, picture, whole, write_png
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.png.header import COLOURS, DEPTHS
from tierscale.pipeline.formats.png.stream import chunk
from tierscale.pipeline.formats.registry import open_image


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


@pytest.mark.parametrize("compressed", [False, True])
def test_xmp_is_read_whether_it_is_compressed_or_not(tmp_path, compressed):
    packet = b"<x:xmpmeta>shelfmark 12</x:xmpmeta>"
    body = b"XML:com.adobe.xmp\0" + bytes((compressed, 0)) + b"de\0titel\0"
    body += zlib.compress(packet) if compressed else packet
    write_png(tmp_path / "a.png", picture(5, 6), 2, 8, False, chunk(b"iTXt", body))
    with open_image(tmp_path / "a.png") as source:
        assert source.metadata.xmp == packet
