"""How far the predicted errors of an image can be trusted, and what its routes are said to lose."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

# Where predicted errors come from: the card of the full tier knows the loss in dB; probes of the
# image alone know differences, in levels; or only an order of tiles is known.
Known = Literal["card", "probes", "order"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What predicted errors rest on.

    known: where they come from. kind: of picture, whose curves were taken. low, high: what each
    tier loses against the full tier lies between these times what is predicted, in 90 of 100
    images. probes: indices of the tiles that all tiers were run on.
    """

    known: Known
    kind: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    probes: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "known": self.known,
            "kind": self.kind,
            "low": list(self.low),
            "high": list(self.high),
            "probes": list(self.probes),
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Evidence":
        """What to_json() gave."""
        return Evidence(
            plain["known"],
            plain["kind"],
            tuple(plain["low"]),
            tuple(plain["high"]),
            tuple(plain["probes"]),
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """What routes lose against the full tier everywhere, in dB.

    loss_db: as measured and predicted. low, high: 5 and 95 % ends. tiles: that all tiers were run
    on; 0: the card of the full tier alone tells.
    """

    loss_db: float
    low: float
    high: float
    tiles: int

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def in_words(self, full: str) -> str:
        """As a person reads it."""
        where = f"measured on {self.tiles} tiles" if self.tiles else "by the network's card"
        return (
            f"{self.loss_db:.3f} dB below {full} everywhere"
            f" ({self.low:.3f} to {self.high:.3f}, {where})"
        )
