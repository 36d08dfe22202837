"""Values of an image as colours of a screen, the same ones in every tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierscale.pipeline.output.export.png import straight


@dataclass(frozen=True, slots=True)
class Screen:
    """How values are shown.

    colour, alpha: kinds of channels and of alpha, as in Source. windows: of each channel, the
    values that become black and full light. colours: of each, RRGGBB. active: whether each is
    shown; these two count for separate channels alone.
    """

    colour: str
    alpha: str | None
    windows: tuple[tuple[float, float], ...]
    colours: tuple[str, ...]
    active: tuple[bool, ...]

    @classmethod
    def of(cls, attributes: Mapping[str, Any], colour: str, alpha: str | None) -> Screen:
        """As the attributes of an OME-Zarr's group say (`omero`)."""
        channels = attributes["ome"]["omero"]["channels"]
        return cls(
            colour,
            alpha,
            tuple((float(c["window"]["start"]), float(c["window"]["end"])) for c in channels),
            tuple(str(c["color"]) for c in channels),
            tuple(bool(c["active"]) for c in channels),
        )

    @classmethod
    def plain(cls, dtype: np.dtype, channels: int, colour: str, alpha: str | None) -> Screen:
        """The whole range of a type, floats 0..1; separate channels as grey."""
        top = float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0
        return cls(
            colour, alpha, ((0.0, top),) * channels, ("FFFFFF",) * channels, (True,) * channels
        )

    def show(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (c, h, w) of any type as uint8: (h, w), (h, w, 3), or with alpha (h, w, 4)."""
        if self.alpha == "premultiplied" and pixels.dtype.kind == "u":
            pixels = straight(pixels)
        shown = np.stack(
            [self._light(channel, *self.windows[at]) for at, channel in enumerate(pixels)]
        )
        if self.colour == "channels":
            return self._mixed(shown)
        if self.colour == "grey":
            return shown[0]
        if self.colour == "greya":
            shown = np.concatenate([np.repeat(shown[:1], 3, axis=0), shown[1:]])
        return np.ascontiguousarray(shown.transpose(1, 2, 0))

    @staticmethod
    def _light(channel: np.ndarray, low: float, high: float) -> np.ndarray:
        """One channel, 0..255; what is no number is black."""
        if channel.dtype == np.uint8 and (low, high) == (0, 255):
            return channel
        values = (channel.astype(np.float32) - low) * (255 / ((high - low) or 1))
        return np.clip(np.rint(np.nan_to_num(values, nan=0.0)), 0, 255).astype(np.uint8)

    def _mixed(self, channels: np.ndarray) -> np.ndarray:
        """Separate channels, 0..255, each as light of its own colour."""
        mixed = np.zeros((*channels.shape[1:], 3), np.float32)
        for channel, colour, active in zip(channels, self.colours, self.active, strict=True):
            tint = np.array([int(colour[at : at + 2], 16) for at in (0, 2, 4)], np.float32)
            mixed += channel[..., None] * (tint / 255) if active else 0
        return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
