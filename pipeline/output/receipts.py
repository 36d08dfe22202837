"""The folder beside an output: plan, receipts and tables.

Files here are written under a temporary name and renamed, so a reader sees all of a file or none of
it.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.storage.atomic import write_bytes, write_json
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.sidecar import sidecar

Key = tuple[int, int, int]
# Objects that are read at a time.
AT_ONCE = 16


def pixels_sha256(pixels: np.ndarray) -> str:
    """Checksum of pixels (c, H, W): C order, little endian; hex."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record that one shard of one plan is written.

    level, y, x: which shard. shape: (c, H, W) of its pixels, clipped to the image. tiles: tiles of
    each tier. cost: multiply-adds spent. seconds: of computing and writing. batch: smallest batch
    used, 0 where not even one window fitted and it was cut. retreats: tiers whose batches were
    smaller than planned because memory ran out; their values may differ from an undisturbed run's
    by 1 of 255. tile_costs: (row, column, multiply-adds, milliseconds).
    """

    plan: str
    level: int
    y: int
    x: int
    shape: tuple[int, int, int]
    pixels_sha256: str
    bytes: int
    tiles: Mapping[str, int]
    cost: float
    seconds: Mapping[str, float]
    device: str
    batch: int
    retreats: tuple[str, ...] = ()
    tile_costs: tuple[tuple[int, int, float, float], ...] = ()

    @property
    def key(self) -> Key:
        return self.level, self.y, self.x


class Folder:
    """The folder beside the output at `path`."""

    def __init__(self, path: str) -> None:
        self.output = path
        self.path = sidecar(path)

    def exists(self) -> bool:
        return (self.path / "plan.json").exists()

    def write_plan(self, plan: Plan) -> None:
        write_json(self.path / "plan.json", plan.to_json())

    def plan(self) -> Plan:
        """The stored plan. Refused: there is none, or it was changed."""
        try:
            return Plan.from_json(json.loads((self.path / "plan.json").read_text()))
        except FileNotFoundError:
            raise Refused(
                f"{self.output} has no plan in {self.path}; it was not made by tierscale, or not"
                " here"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"{self.path / 'plan.json'} cannot be used: {error}; give --overwrite to begin anew"
            ) from error

    def write(self, receipt: Receipt) -> None:
        """Store a receipt. It goes last: a shard without one is done again, one without its shard
        would hide a hole.
        """
        plain = {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}
        write_bytes(
            self.path / "receipts" / str(receipt.level) / f"{receipt.y}.{receipt.x}.json",
            json.dumps(plain).encode(),
        )

    def receipts(self, plan: str, level: int | None = None) -> Iterator[Receipt]:
        """All receipts of one plan, or those of one level; what cannot be read counts as absent,
        and its shard is done again.
        """
        for text in _texts(
            sorted((self.path / "receipts").glob(f"{'*' if level is None else level}/*.json"))
        ):
            if (receipt := _parsed(text, plan)) is not None:
                yield receipt

    def receipt(self, plan: str, key: Key) -> Receipt:
        """The receipt of one shard. Damaged: there is none that can be used."""
        file = self.path / "receipts" / str(key[0]) / f"{key[1]}.{key[2]}.json"
        with contextlib.suppress(FileNotFoundError):
            if (receipt := _parsed(file.read_text(), plan)) is not None:
                return receipt
        raise Damaged(
            f"{self.output} level {key[0]} shard {key[1]}.{key[2]} has no receipt any more; run the"
            " upscale command again"
        )

    def read_json(self, name: str) -> Any:
        """Content of a file here, or None."""
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _parsed(text: str, plan: str) -> Receipt | None:
    """A receipt of a plan; None: it is of another one, or torn."""
    try:
        plain = json.loads(text)
        plain |= {"shape": tuple(plain["shape"]), "retreats": tuple(plain.get("retreats", ()))}
        receipt = Receipt(
            **{**plain, "tile_costs": tuple(tuple(entry) for entry in plain["tile_costs"])}
        )
    except (ValueError, KeyError, TypeError):
        return None
    return receipt if receipt.plan == plan else None


def _texts(files: list[Any]) -> Iterator[str]:
    """Contents of files, in order; of objects, many are asked for at a time, because each takes its
    way.
    """
    if files and isinstance(files[0], ObjectPath):
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="receipts") as readers:
            yield from readers.map(ObjectPath.read_text, files)
    else:
        yield from (file.read_text() for file in files)
