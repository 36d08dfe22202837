"""What kind of picture an image is, and the families of networks that suit kinds."""

from dataclasses import dataclass
from typing import Any

# Networks for pictures as they are, and for scans and photos with blur, grain and compression.
FAMILIES = ("clean", "photo")
# Less than this, levels and pixels, is not spoken of.
GRAIN, BLUR = 1.5, 0.5


@dataclass(frozen=True, slots=True)
class Kind:
    """What an image has suffered, as estimated.

    blur: sigma in pixels. grain: standard deviation in levels of 255. jpeg_quality: 1..100; None:
    no trace of compression.
    """

    blur: float
    grain: float
    jpeg_quality: int | None

    def to_json(self) -> dict[str, Any]:
        """As plans and summaries hold it."""
        return {
            "blur": round(self.blur, 2),
            "grain": round(self.grain, 1),
            "jpeg_quality": self.jpeg_quality,
        }

    @property
    def damage(self) -> tuple[str, ...]:
        """What is to be seen of it, in words; none: nothing to speak of."""
        parts = [f"grain of about {self.grain:.0f} levels"] if self.grain >= GRAIN else []
        parts += [f"blur of about {self.blur:.1f} pixels"] if self.blur >= BLUR else []
        parts += [f"JPEG about {self.jpeg_quality}"] if self.jpeg_quality is not None else []
        return tuple(parts)

    def __str__(self) -> str:
        return ", ".join(self.damage) or "no damage to speak of"
