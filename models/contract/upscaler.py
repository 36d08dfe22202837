"""The one contract between a network or method and the pipeline that feeds it windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

from torch import Tensor

from tierscale.models.contract.efforts import Efforts

# Input pixels a side of the window that costs are quoted for.
LARGE = 512


def hr_length(length: int, scale: Fraction) -> int:
    """Output pixels that `length` input pixels become: rounded once, halves up, at least 1."""
    return max(1, (2 * length * scale.numerator + scale.denominator) // (2 * scale.denominator))


def hr_edge(edge: int, length: int, scale: Fraction) -> int:
    """Output pixel at which the line before input pixel `edge` falls, of hr_length(length) pixels.

    Monotone, 0 at 0 and hr_length at `length`, so that spans which cover the input once cover the
    output once.
    """
    if edge >= length:
        return hr_length(length, scale)
    return min(edge * scale.numerator // scale.denominator, hr_length(length, scale))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a batch of equally large windows lies in the image, in integers only.

    scale: output pixels for each input pixel, exact.
    size: height and width of the whole input image.
    origins: row and column of the first pixel of each window.
    """

    scale: Fraction
    size: tuple[int, int]
    origins: tuple[tuple[int, int], ...]

    def hr_spans(
        self, index: int, height: int, width: int
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Output rows and columns (start, stop) of window `index`.

        height, width: of the window, in input pixels.
        """
        spans = []
        for origin, length, whole in zip(
            self.origins[index], (height, width), self.size, strict=True
        ):
            spans.append(
                (hr_edge(origin, whole, self.scale), hr_edge(origin + length, whole, self.scale))
            )
        return spans[0], spans[1]

    def hr_shape(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width of windows of `height` by `width` input pixels.

        ValueError if they differ from window to window.
        """
        shapes = set()
        for index in range(len(self.origins)):
            (top, bottom), (left, right) = self.hr_spans(index, height, width)
            shapes.add((bottom - top, right - left))
        if len(shapes) != 1:
            raise ValueError(
                f"windows of {height}x{width} at {self.origins} become outputs of different sizes"
                f" {sorted(shapes)}; put each size into a batch of its own"
            )
        return shapes.pop()

    def of_window(self, index: int) -> "Placement":
        """The placement of one window of the batch alone."""
        return Placement(self.scale, self.size, (self.origins[index],))

    @staticmethod
    def whole(size: tuple[int, int], scale: Fraction) -> "Placement":
        """One window that is the whole image."""
        return Placement(scale, size, ((0, 0),))


@dataclass(frozen=True, slots=True)
class Upscaled:
    """What an upscaler made of a batch of windows.

    pixels: (N, C, H, W), dtype and device of the windows, not clamped.
    macs: multiply-adds really executed for each window, (N,), float64, on the CPU.
    choice: map of what was chosen (class, depth or exit per pixel, width per window), or None.
    """

    pixels: Tensor
    macs: Tensor
    choice: Tensor | None = None


class Upscaler(Protocol):
    """A network or method as the pipeline sees it.

    scales: the factors it was made for; None: any.
    reach: input pixels it looks at on each side of an output pixel's place; None: the whole window.
    parameters: numbers that were trained.
    control: what effort turns, such as "k" or "width"; None: it runs at full effort only.
    efforts: which setting of the control costs which share, as measured; None: not measured yet.
    has_bfloat16: whether to_bfloat16() changes anything.
    """

    scales: frozenset[Fraction] | None
    reach: int | None
    parameters: int
    control: str | None
    efforts: Efforts | None

    @property
    def has_bfloat16(self) -> bool: ...

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        """Enlarge windows (N, C, h, w), values 0..1.

        effort: share of its full computation it may use, 0..1, which `efforts` turns into a setting
        of the control; below its floor it runs at the floor. settings: frozen values by name, such
        as a threshold of the whole image; one under the control's name is used in place of
        `effort`. ValueError: a scale, shape, effort or setting that it does not know.
        """
        ...

    def to(self, device: str) -> "Upscaler":
        """Move the weights to a device, in place."""
        ...

    def to_bfloat16(self) -> "Upscaler":
        """Hold weights and maps in bfloat16 from now on, in place.

        Windows and pixels stay float32, and so do the mean, the residual, and what decides how much
        is computed where.
        """
        ...

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window.

        Below full effort it is the mean over the images that the efforts were measured on.
        """
        ...

    def memory(self, scale: Fraction) -> float:
        """Bytes it takes at most for each input pixel of a window on a CPU.

        A fixed 200 MB for a network's rows come on top.
        """
        ...


@runtime_checkable
class Adjustable(Upscaler, Protocol):
    """An upscaler whose efforts are found by measuring what settings of its control execute.

    calibration_grid: settings to measure, from the least computation to the most. safety_margin:
    how far the harder half of the photos may raise a share above the mean of all.
    """

    calibration_grid: Sequence[float]
    safety_margin: float


@runtime_checkable
class OnGrid(Upscaler, Protocol):
    """An upscaler that looks at its windows in squares, counted from where they begin.

    multiple: input pixels; windows that begin at multiples of it come out as in the whole image.
    """

    multiple: int


@runtime_checkable
class EffortByScale(Upscaler, Protocol):
    """An upscaler whose method prescribes how much of it each scale needs."""

    def effort_by_scale(self, scale: Fraction) -> float:
        """The effort that the method's paper takes at a scale, above 0 to 1."""
        ...
