"""The numbers that networks compute with: as asked for, as workers have them, as plans say."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tierscale.pipeline.errors import Refused

# What may be written.
PRECISIONS = ("auto", "fp32", "bf16")
# What a plan says. Each gives bytes of its own; the first two are bfloat16, by the instructions
# that processors have for it.
Precision = Literal["amx_bf16", "avx512_bf16", "fp32", "cuda"]
BFLOAT16: tuple[Precision, ...] = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What all workers compute on.

    device: "cpu" or "cuda". bfloat16: the kind that all of them have; None: they have none, or not
    all the same.
    """

    device: str = "cpu"
    bfloat16: Precision | None = None

    @classmethod
    def shared(cls, device: str, kinds: Iterable[Precision | None]) -> "Hardware":
        """What workers have in common, each with its own kind of bfloat16."""
        found = set(kinds)
        return cls(device, found.pop() if len(found) == 1 else None)

    def has(self, precision: Precision) -> bool:
        """Whether the workers can carry out a plan of this precision."""
        return precision not in BFLOAT16 or precision == self.bfloat16

    def lacks(self, device: str, precision: Precision) -> str | None:
        """Why the workers cannot go on with a plan, in words; None: they can."""
        if device != self.device:
            return (
                f"on {device} and the workers run on {self.device}; give --device {device} to go on"
            )
        if not self.has(precision):
            return (
                f"in {precision}, which the workers' processors do not all have; go on on a machine"
                f" that has {precision}, or give --overwrite to start over"
            )
        return None


def resolve(asked: str, hardware: Hardware, able: bool) -> Precision:
    """The precision of a new plan.

    able: whether any of its networks can be computed in bfloat16. Refused: bf16 is asked for, and
    not all workers have it.
    """
    if hardware.device == "cuda":
        if asked == "bf16":
            raise Refused(
                "bf16 is for processors, and the workers run on cuda; leave --precision out, or use"
                " --device cpu"
            )
        return "cuda"
    if asked == "bf16" and hardware.bfloat16 is None:
        raise Refused(
            "bf16 is asked for, and the workers' processors do not all have one kind of it"
            f" ({' or '.join(BFLOAT16)}); use --precision fp32, or leave it out"
        )
    wanted = asked != "fp32" and able
    return hardware.bfloat16 if wanted and hardware.bfloat16 else "fp32"


def asks_for(asked: str, precision: Precision) -> bool:
    """Whether a stored plan of this precision is what is asked for."""
    return asked == "auto" or (asked == "bf16") == (precision in BFLOAT16)
