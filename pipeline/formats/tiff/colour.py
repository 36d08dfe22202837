"""What the samples of a TIFF page mean, and the steps that make them grey, RGB or channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
# ReferenceBlackWhite of 8-bit samples that use their whole range.
FULL_8_BITS = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


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
    bits = stated_bits(page, uri)
    meaning = meaning_of(page, stacked, composite, bits, uri)
    if not spread(page):
        return meaning
    stored = int(page.bitspersample)
    return replace(
        meaning,
        steps=(lambda block: arithmetic.from_bits(block, stored), *meaning.steps),
        notes=(f"{stored}-bit samples were spread to 0..255", *meaning.notes),
    )


def spread(page: Any) -> bool:
    """Whether samples have fewer than 8 bits and are values, not single bits or indices."""
    return 1 < int(page.bitspersample) < 8 and int(page.photometric) != PALETTE


def meaning_of(
    page: Any, stacked: bool, composite: bool, bits: int | None, uri: str
) -> Interpretation:
    """What samples of at least 8 bits become; arguments as of `interpret`."""
    photometric = int(page.photometric)
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
    """Bits of a sample where these are odd and more than 8 (10, 12, 14...), else None."""
    bits = page.bitspersample
    if isinstance(bits, tuple):
        raise Refused(
            f"{uri}: samples of unequal sizes ({bits} bits) are not supported; convert the file to"
            " 8 or 16 bits"
        )
    return None if bits <= 8 or bits in (16, 24, 32, 64) else int(bits)


def interpret_grey(page: Any, bits: int | None) -> Interpretation:
    """One grey, grey with alpha, or channels.

    White-is-zero is inverted.
    """
    alpha = (
        ALPHA_KINDS.get(int(page.extrasamples[0]))
        if page.samplesperpixel == 2 and len(page.extrasamples) == 1
        else None
    )
    steps: tuple[Step, ...] = ()
    if int(page.photometric) == MINISWHITE and np.dtype(page.dtype).kind in "bu":
        stored = int(page.bitspersample)
        top = 1 if stored == 1 else 255 if stored < 8 else 2**stored - 1
        steps = (lambda block: turned_round(block, top, block.shape[-1] - bool(alpha)),)
    colour: Colour = "greya" if alpha else "grey" if page.samplesperpixel == 1 else "channels"
    return Interpretation(colour, alpha, steps, bits)


def turned_round(block: np.ndarray, top: int, count: int) -> np.ndarray:
    """The first `count` samples of (y, x, samples) with black and white exchanged."""
    greys = block[..., :count]
    turned = ~greys if block.dtype == np.bool_ else (top - greys).astype(block.dtype)
    return np.concatenate([turned, block[..., count:]], axis=-1)


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
    """RGB, by the decoder or by what the file says of its YCbCr."""
    if page.compression in RGB_DECODERS and page.planarconfig == 1:
        return Interpretation("rgb", bits=bits)
    if page.samplesperpixel != 3 or page.bitspersample not in (8, 16):
        raise Refused(
            f"{uri}: YCbCr of {page.samplesperpixel} samples of {page.bitspersample} bits is not"
            " supported; convert it to RGB"
        )
    reading = ycbcr_coding(page, uri)
    return Interpretation(
        "rgb",
        steps=(lambda block: arithmetic.from_ycbcr(block, reading),),
        bits=bits,
        notes=("YCbCr was turned to RGB",),
    )


def ycbcr_coding(page: Any, uri: str) -> arithmetic.YCbCr:
    """YCbCrCoefficients and ReferenceBlackWhite of a page, or what holds where it has none.

    Damaged: they are impossible.
    """
    luma, reference = (rationals(page.tags.valueof(code)) for code in (529, 532))
    if reference == FULL_8_BITS:  # some writers put it into files of 16 bits too
        reference = None
    coding = arithmetic.YCbCr(luma or arithmetic.BT601, reference)
    sound = len(coding.luma) == 3 and min(coding.luma) > 0 and abs(sum(coding.luma) - 1) < 0.02
    if reference is not None:
        sound &= len(reference) == 6 and all(
            white > black for black, white in zip(reference[::2], reference[1::2], strict=True)
        )
    if not sound:
        raise Damaged(
            f"{uri}: its YCbCr has coefficients {coding.luma} and reference values {reference},"
            " which are impossible; the file is damaged, fetch it again"
        )
    return coding


def rationals(stored: Any) -> tuple[float, ...] | None:
    """Fractions of a tag, which tifffile gives as pairs of numbers; None: there is no such tag."""
    if not isinstance(stored, tuple):
        return None
    pairs = zip(stored[::2], stored[1::2], strict=False)
    return tuple(float(up) / float(down) if down else 0.0 for up, down in pairs)


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
