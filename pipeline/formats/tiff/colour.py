"""What the samples of a TIFF page mean, and the steps that make them grey, RGB or channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.source import Alpha, Colour
from tierscale.pipeline.formats.uncompressed import Step

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK = 0, 1, 2, 3, 4
SEPARATED, YCBCR, CIELAB, ICCLAB = 5, 6, 8, 9
ALPHA_KINDS: dict[int, Alpha] = {1: "premultiplied", 2: "straight"}
# Decoders that hand out RGB whatever the file stores: JPEG, lossy DNG JPEG, WebP, JPEG XL, PNG.
RGB_DECODERS = (6, 7, 33007, 34892, 34927, 50001, 34933, 50002, 52546)
APERIO_YCBCR = 33003


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What stored samples become.

    colour, alpha: of the final channels.
    steps: applied in turn to blocks (y, x, samples).
    bits: significant bits where fewer than the type has.
    notes: conversions, in sentences.
    converted: whether colours changed their space, so that the file's ICC profile no longer
        describes them.
    """

    colour: Colour
    alpha: Alpha | None = None
    steps: tuple[Step, ...] = ()
    bits: int | None = None
    notes: tuple[str, ...] = ()
    converted: bool = False


def interpret(page: Any, stacked: bool, composite: bool, uri: str) -> Interpretation:
    """What a page's samples become.

    stacked: the page is one of several channels. composite: a file that says its samples are
    separate channels (ImageJ composite). Refused: such samples are not supported.
    """
    photometric = int(page.photometric)
    bits = stated_bits(page, uri)
    if stacked or composite:
        note = (
            ("its samples are an ImageJ composite and were read as separate channels",)
            if composite and photometric == RGB
            else ()
        )
        return Interpretation("channels", bits=bits, notes=note)
    if photometric in (MINISBLACK, MINISWHITE, MASK):
        return interpret_grey(page, bits)
    reading = COLOURS.get(photometric)
    if reading is None:
        named = getattr(tifffile.PHOTOMETRIC, "_value2member_map_", {}).get(photometric)
        raise Refused(
            f"{uri}: TIFF colours of kind {named.name if named else photometric} are not supported;"
            " convert the file to RGB"
        )
    return reading(page, bits, uri)


def stated_bits(page: Any, uri: str) -> int | None:
    """Bits of a sample where these are odd (10, 12, 14...), else None."""
    bits = page.bitspersample
    if isinstance(bits, tuple):
        raise Refused(
            f"{uri}: samples of unequal sizes ({bits} bits) are not supported; convert the file to"
            " 8 or 16 bits"
        )
    return None if bits in (1, 2, 4, 8, 16, 24, 32, 64) else int(bits)


def interpret_grey(page: Any, bits: int | None) -> Interpretation:
    """One grey, grey with alpha, or channels.

    White-is-zero is inverted, and samples of 2 and 4 bits are spread to 0..255.
    """
    steps: list[Step] = []
    notes: list[str] = []
    stored = int(page.bitspersample)
    if stored in (2, 4) and page.samplesperpixel == 1:
        steps.append(lambda block: arithmetic.from_bits(block, stored))
        notes.append(f"{stored}-bit samples were spread to 0..255")
    if int(page.photometric) == MINISWHITE and np.dtype(page.dtype).kind in "bu":
        top = 1 if stored == 1 else 255 if stored in (2, 4) else 2**stored - 1
        steps.append(
            lambda block: ~block if block.dtype == np.bool_ else (top - block).astype(block.dtype)
        )
    alpha = (
        ALPHA_KINDS.get(int(page.extrasamples[0]))
        if page.samplesperpixel == 2 and len(page.extrasamples) == 1
        else None
    )
    colour: Colour = "greya" if alpha else "grey" if page.samplesperpixel == 1 else "channels"
    return Interpretation(colour, alpha, tuple(steps), bits, tuple(notes))


def interpret_rgb(page: Any, bits: int | None, uri: str) -> Interpretation:
    """RGB, RGB with alpha; with further samples, or one of unknown meaning, channels."""
    steps: tuple[Step, ...] = ()
    if page.compression == APERIO_YCBCR:
        steps = (arithmetic.from_ycbcr,)
    if page.samplesperpixel < 3:
        raise Damaged(
            f"{uri}: an RGB page has {page.samplesperpixel} samples; the file is damaged, fetch it"
            " again"
        )
    if page.samplesperpixel == 3:
        return Interpretation("rgb", steps=steps, bits=bits)
    alpha = (
        ALPHA_KINDS.get(int(page.extrasamples[0]))
        if page.samplesperpixel == 4 and len(page.extrasamples)
        else None
    )
    if alpha:
        return Interpretation("rgba", alpha, bits=bits)
    return Interpretation(
        "channels",
        bits=bits,
        notes=(
            f"{page.samplesperpixel} samples of which not all are colours were read as channels",
        ),
    )


def interpret_ycbcr(page: Any, bits: int | None, uri: str) -> Interpretation:
    """RGB, by the decoder or by BT.601."""
    if page.compression in RGB_DECODERS:
        return Interpretation("rgb", bits=bits)
    if page.samplesperpixel != 3 or page.dtype not in (np.uint8, np.uint16):
        raise Refused(
            f"{uri}: YCbCr of {page.samplesperpixel} samples of type {page.dtype} is not supported;"
            " convert it to RGB"
        )
    return Interpretation(
        "rgb", steps=(arithmetic.from_ycbcr,), bits=bits, notes=("YCbCr was turned to RGB",)
    )


def interpret_palette(page: Any, bits: int | None, uri: str) -> Interpretation:
    """RGB of 8 bits, looked up."""
    if page.colormap is None or page.samplesperpixel != 1:
        raise Damaged(
            f"{uri}: a palette page without its palette; the file is damaged, fetch it again"
        )
    table = np.asarray(page.colormap).T
    # The palette has 16 bits; old writers put 8-bit values into it.
    table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)

    def look_up(block: np.ndarray) -> np.ndarray:
        indices = block.view(np.uint8) if block.dtype == np.bool_ else block
        return arithmetic.from_palette(indices, table)

    return Interpretation("rgb", steps=(look_up,), notes=("its palette was expanded to RGB",))


def interpret_cmyk(page: Any, bits: int | None, uri: str) -> Interpretation:
    """RGB from four inks."""
    if (
        page.samplesperpixel < 4
        or page.tags.valueof(332, 1) != 1
        or page.dtype not in (np.uint8, np.uint16)
        or bits
    ):
        raise Refused(
            f"{uri}: {page.samplesperpixel} separated inks of type {page.dtype} are not supported;"
            " convert the file to RGB"
        )
    notes = ["CMYK was turned to RGB by (1 - c)(1 - k), without its profile"]
    if page.samplesperpixel > 4:
        notes.append("samples beyond the four inks were left out")
    return Interpretation("rgb", steps=(arithmetic.from_cmyk,), notes=tuple(notes), converted=True)


def interpret_lab(page: Any, bits: int | None, uri: str) -> Interpretation:
    """sRGB from L*a*b*."""
    if page.samplesperpixel != 3 or page.bitspersample not in (8, 16):
        raise Refused(
            f"{uri}: L*a*b* of {page.samplesperpixel} samples of {page.bitspersample} bits is not"
            " supported; convert it to RGB"
        )
    signed, unsigned = int(page.photometric) == CIELAB, np.dtype(f"u{page.bitspersample // 8}")

    def to_srgb(block: np.ndarray) -> np.ndarray:
        return arithmetic.from_lab(block.view(unsigned), signed)

    notes = ("CIE L*a*b* was turned to sRGB",)
    return Interpretation("rgb", steps=(to_srgb,), notes=notes, converted=True)


COLOURS: dict[int, Callable[[Any, int | None, str], Interpretation]] = {
    RGB: interpret_rgb,
    PALETTE: interpret_palette,
    SEPARATED: interpret_cmyk,
    YCBCR: interpret_ycbcr,
    CIELAB: interpret_lab,
    ICCLAB: interpret_lab,
}
