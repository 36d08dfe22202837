"""What the text chunks of a PNG hold: XMP, and the raw profiles of ImageMagick and exiftool.

Raw profiles are blocks of other formats as hexadecimal text: a name, the length in bytes, lines of
digits.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

TEXT_LIMIT = 64 << 20
XMP_KEYWORD, RAW_KEYWORD = "XML:com.adobe.xmp", "Raw profile type "
XMP_MARK, EXIF_MARK = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
# Raw profiles by what they hold; APP1 is that of a JPEG: EXIF or XMP.
PROFILES = {name: name for name in ("exif", "xmp", "iptc", "icc")} | {"app1": "exif", "icm": "icc"}
# Keywords of texts that say nothing of the picture: the program, and what ImageMagick repeats of
# other chunks and of the file.
NOT_OF_THE_PICTURE = ("Software", "date:", "exif:", "icc:", "png:", "xmp:", "tiff:")


def texts(chunks: Sequence[tuple[bytes, bytes]], notes: list[str]) -> dict[str, bytes]:
    """Texts of tEXt, zTXt and iTXt chunks by keyword, as bytes; the first of each keyword.

    Damaged ones are left out and named in `notes`. Layouts: PNG specification (ISO/IEC 15948),
    section 11.3.4.
    """
    found: dict[str, bytes] = {}
    for kind, body in chunks:
        name, _, rest = body.partition(b"\0")
        keyword = name.decode("latin-1")
        packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
        text = rest[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else rest[kind == b"zTXt" :]
        try:
            text = zlib.decompressobj().decompress(text, TEXT_LIMIT) if packed else text
        except zlib.error:
            notes.append(f'its text "{keyword}" is damaged and was left out')
            continue
        found.setdefault(keyword, text)
    return found


def raw_profiles(found: Mapping[str, bytes], notes: list[str]) -> dict[str, bytes]:
    """The blocks "exif", "xmp", "iptc" and "icc" that are in raw profiles; `notes` on others."""
    blocks: dict[str, bytes] = {}
    for keyword, text in found.items():
        if not keyword.startswith(RAW_KEYWORD):
            continue
        name = keyword.removeprefix(RAW_KEYWORD)
        kind, block = PROFILES.get(name.lower()), unpacked(text)
        if kind is None or block is None:
            why = "is of a kind that outputs do not hold" if block else "is damaged"
            notes.append(f'its text "{keyword}" {why} and was left out')
            continue
        if block.startswith(XMP_MARK):
            kind, block = "xmp", block.removeprefix(XMP_MARK)
        blocks.setdefault(kind, block.removeprefix(EXIF_MARK) if kind == "exif" else block)
    return blocks


def unpacked(text: bytes) -> bytes | None:
    """The block of a raw profile; None: it is damaged."""
    _, length, *digits = text.split() if len(text.split(None, 2)) == 3 else (b"", b"", b"")
    try:
        block = bytes.fromhex(b"".join(digits).decode("ascii"))
        return block if len(block) == int(length) else None
    except ValueError:
        return None


def left_out(found: Mapping[str, bytes]) -> list[str]:
    """A note that names the texts that an output does not hold, if there are any."""
    named = [
        keyword
        for keyword in found
        if keyword != XMP_KEYWORD and not keyword.startswith((RAW_KEYWORD, *NOT_OF_THE_PICTURE))
    ]
    return [f"its texts {', '.join(named)} were left out"] if named else []
