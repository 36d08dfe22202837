"""The quality that a JPEG was written with, from its own quantisation table."""

from collections.abc import Mapping, Sequence

# Luminance table of quality 50 (ITU-T T.81, annex K, table K.1), row by row.
STANDARD = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The quality, 1 to 100, of quantisation tables as Pillow gives them; None: there are none.

    libjpeg scales the standard table by S per cent, S = 5000 / q below 50 and 200 - 2 q from there
    on. Cameras have tables of their own; then it is the quality of about the same coarseness.
    """
    luminance = tables.get(0)
    if luminance is None or len(luminance) != len(STANDARD):
        return None
    # Whatever the order of the coefficients: scaling keeps the order of their sizes. Beyond 1 and
    # 255 tables are cut off.
    pairs = [
        (step, standard)
        for step, standard in zip(sorted(luminance), sorted(STANDARD), strict=True)
        if 1 < step < 255
    ]
    if not pairs:
        return 100 if max(luminance) == 1 else 1
    percent = 100 * sum(step for step, _ in pairs) / sum(standard for _, standard in pairs)
    quality = 5000 / percent if percent > 100 else (200 - percent) / 2
    return min(100, max(1, round(quality)))
