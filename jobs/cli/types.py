"""What options take: policies, scales, sizes, times, shares, numbers, JSON; and refusals."""

import json
import math
import re
from fractions import Fraction
from typing import Any

import click

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import KINDS, OLD_NAMES

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# Beyond it, torch takes no seed.
SEEDS = 2**63

Param = click.Parameter | None
Context = click.Context | None


class PolicyType(click.Choice[str]):
    """A policy by its name; names of version 0.1 are accepted, and shown nowhere."""

    def __init__(self) -> None:
        super().__init__(tuple(KINDS))

    def convert(self, value: Any, param: Param, ctx: Context) -> str:
        """The policy's name."""
        return super().convert(OLD_NAMES.get(value, value), param, ctx)


class ScaleType(click.ParamType[Fraction]):
    """A scale: "4", "2.5" or "5/2"."""

    name = "number or fraction"

    def convert(self, value: Any, param: Param, ctx: Context) -> Fraction:
        """The scale. Refused: it is no number."""
        from tierscale.pipeline.plan.options import parse_scale

        return value if isinstance(value, Fraction) else parse_scale(value)


class BytesType(click.ParamType[int]):
    """A number of bytes: "8000000000", "8G" or "500M", in powers of 1024."""

    name = "bytes"

    def convert(self, value: Any, param: Param, ctx: Context) -> int:
        """The number. Refused: it is none."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(value).strip().lower())
        if not match:
            raise Refused(f"{value!r} is not a number of bytes; write 8000000000, 8G or 500M")
        return int(float(match[1]) * UNITS[match[2]])


class TimeType(click.ParamType[float]):
    """A length of time: "6h", "90m", "1h30m" or "45s"."""

    name = "time"

    def convert(self, value: Any, param: Param, ctx: Context) -> float:
        """Seconds. Refused: it is no time."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(
            r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?",
            str(value).strip().lower(),
        )
        if not match or not any(match.groups()):
            raise Refused(f"{value!r} is not a length of time; write 6h, 90m, 1h30m or 45s")
        return sum(
            float(part or 0) * seconds
            for part, seconds in zip(match.groups(), (3600, 60, 1), strict=True)
        )


class ShareType(click.ParamType[float]):
    """A share: "1%" or "0.01"."""

    name = "share"

    def convert(self, value: Any, param: Param, ctx: Context) -> float:
        """The share, 0 to 1. Refused: it is none."""
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", str(value).strip())
        share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
        if not 0 <= share <= 1:
            raise Refused(f"{value!r} is not a share from 0 to 1; write one such as 1% or 0.01")
        return share


class NumberType(click.ParamType):
    """A finite number above 0 (`zero`: or 0)."""

    def __init__(self, kind: type[int] | type[float], zero: bool = False) -> None:
        self.kind, self.zero = kind, zero
        self.name = "integer" if kind is int else "float"

    def convert(self, value: Any, param: Param, ctx: Context) -> float:
        """The number in an option's text; fails with a message that quotes the text."""
        try:
            number = self.kind(value)
        except ValueError:
            number = math.nan
        positive = number > 0 or (self.zero and number == 0)
        if not (math.isfinite(number) and positive and number < SEEDS):
            what = "a whole number" if self.kind is int else "a finite number"
            least = "of 0 or more" if self.zero else "above 0"
            self.fail(f"{value!r} is not {what} {least}", param, ctx)
        return number


class JsonType(click.ParamType):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: Param, ctx: Context) -> dict[str, Any]:
        """The object in an option's text; fails with a message that quotes the text."""
        try:
            content = value if isinstance(value, dict) else json.loads(value)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self.fail(f'{value!r} is not a JSON object such as {{"features": 32}}', param, ctx)
        return content
