"""What workers are asked when a plan is carried out: one frozen class a task, safe to repeat."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused, Unreachable
from tierscale.pipeline.geometry.layout import Work
from tierscale.pipeline.inference.blend import Piece
from tierscale.pipeline.inference.enlarge import enlarge
from tierscale.pipeline.inference.fidelity import (
    FidelityRule,
    MadeShard,
    TileFidelity,
    measure,
    worst,
)
from tierscale.pipeline.inference.pyramid import Averaging, half
from tierscale.pipeline.inference.shard import ShardInput, finish_shard, read_input, tile_costs
from tierscale.pipeline.output import ownership, store
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.pictures.preview import write_pictures
from tierscale.pipeline.output.receipt import Receipt, pixels_sha256
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.run.workers import allocator
from tierscale.pipeline.run.workers.pool import Handle
from tierscale.pipeline.run.workers.worker import Worker

# Fidelity is measured, and nothing is doubted.
RECORDED = FidelityRule()


@dataclass(frozen=True, slots=True)
class EnlargeTiles:
    """Make the pieces of a shard that some of the tiers make."""

    plan: Handle[Plan]
    pixels: PixelSource
    shard: tuple[int, int]
    tiers: tuple[int, ...]

    def run(self, worker: Worker) -> tuple[int, list[Piece]]:
        """How many pieces there are, and the pieces."""
        plan = self.plan.get()
        works = [work for work in plan.works(self.shard) if work.tier in self.tiers]
        shard_input = read_input(plan, worker.reader(plan, self.pixels), self.shard, works)
        pieces = _enlarged(worker, plan, shard_input, works)
        return len(pieces), pieces


@dataclass(frozen=True, slots=True)
class FinishShard:
    """Make what is missing of a shard, stitch it, write it, and then its receipt.

    pieces: those that are made already. rule: how faithful it must be; a shard that is doubted gets
    no receipt on the disk unless another worker made the same. seen: what others made of it.
    """

    plan: Handle[Plan]
    pixels: PixelSource
    output: str
    shard: tuple[int, int]
    pieces: Handle[list[Piece]] | None = None
    rule: FidelityRule = RECORDED
    seen: tuple[Receipt, ...] = ()

    def run(self, worker: Worker) -> Receipt:
        """The receipt. Damaged: source or output are not what they were."""
        plan, began = self.plan.get(), time.perf_counter()
        works = plan.works(self.shard)
        ready = [] if self.pieces is None else self.pieces.get()
        there = {piece.work.tier for piece in ready}
        missing = [work for work in works if work.tier not in there]
        shard_input = read_input(plan, worker.reader(plan, self.pixels), self.shard, works)
        seconds = {"read": time.perf_counter() - began}
        pieces = [*ready, *_enlarged(worker, plan, shard_input, missing)]
        # Overlapping parts of one tier agree to the last float only; a fixed order makes the bytes
        # the same wherever pieces came from.
        pieces.sort(key=lambda piece: works.index(piece.work))
        stitching = time.perf_counter()
        # The networks' maps are free by now, and the shard's own buffers come on top.
        allocator.give_back()
        pixels = finish_shard(plan, shard_input, self.shard, pieces)
        # Floats of a whole shard, which are not needed while it is written.
        pieces = [piece.without_pixels() for piece in pieces]
        ready, stitched = [], time.perf_counter()
        seconds["enlarge"] = sum(piece.milliseconds for piece in pieces) / 1000
        seconds["stitch"] = stitched - stitching
        tiles = measure(MadeShard(plan, shard_input, self.shard, pixels), self.rule)
        seconds["check"] = time.perf_counter() - stitched
        with writing(plan, self.output):
            written = time.perf_counter()
            receipt = _written(worker, plan, self.output, (0, *self.shard), pixels)
            seconds["write"] = time.perf_counter() - written
            receipt = _of_pieces(receipt, plan, seconds, pieces, tiles)
            if not self.rule.doubts(receipt.fidelity) or any(map(receipt.agrees, self.seen)):
                Folder(self.output).write(receipt)
        del pixels
        allocator.give_back()
        return receipt


@dataclass(frozen=True, slots=True)
class HalveShards:
    """Make one shard of a smaller level from the level before, and then its receipt."""

    plan: Handle[Plan]
    output: str
    level: int
    shard: tuple[int, int]

    def run(self, worker: Worker) -> Receipt:
        """The receipt. Damaged: a shard of the level before is not as its receipt says.

        Made from it, this one would be wrong too, and no checksum would ever tell.
        """
        plan, began = self.plan.get(), time.perf_counter()
        folder = Folder(self.output)

        def read(shard: tuple[int, int]) -> np.ndarray:
            receipt = folder.receipt(plan.digest, (self.level - 1, *shard))
            return verified(self.output, receipt)

        valid = store.averages_valid(self.output)
        averaging = Averaging.of(plan, plan.value_range) if valid else None
        pixels = half(store.shards_of(self.output, self.level - 1), self.shard, read, averaging)
        with writing(plan, self.output):
            key = (self.level, *self.shard)
            receipt = _written(worker, plan, self.output, key, pixels)
            receipt = replace(receipt, seconds={"pyramid": time.perf_counter() - began})
            folder.write(receipt)
        del pixels
        allocator.give_back()
        return receipt


@dataclass(frozen=True, slots=True)
class DrawPictures:
    """Draw the pictures beside a finished output."""

    plan: Handle[Plan]
    output: str

    def run(self, worker: Worker) -> None:
        """They are written to the folder beside the output."""
        write_pictures(self.output, self.plan.get())


@dataclass(frozen=True, slots=True)
class Difference:
    """How a shard differs from its receipt.

    found: checksum of its pixels, None: they cannot be read.
    """

    text: str
    found: str | None = None


@dataclass(frozen=True, slots=True)
class VerifyShard:
    """Compare a written shard with its receipt."""

    output: str
    receipt: Receipt

    def run(self, worker: Worker) -> Difference | None:
        """None if it is as its receipt says.

        Unreachable: nothing can be said, because its store does not answer.
        """
        try:
            return _difference(self.output, self.receipt, _pixels(self.output, self.receipt))
        except Unreachable:
            raise
        except Damaged as error:
            return Difference(str(error))


def _written(worker: Worker, plan: Plan, output: str, key: Key, pixels: np.ndarray) -> Receipt:
    """Write a shard, as the last thing that the worker is needed for.

    What its receipt says of it before it is told how it was made.
    """
    digest = pixels_sha256(pixels)
    length = store.write_shard(output, key[0], (key[1], key[2]), pixels, worker.rest)
    return Receipt(
        plan=plan.digest,
        level=key[0],
        y=key[1],
        x=key[2],
        shape=(pixels.shape[0], pixels.shape[1], pixels.shape[2]),
        pixels_sha256=digest,
        bytes=length,
        tiles={},
        cost=0.0,
        seconds={},
        device=worker.device.name,
        precision=plan.precision,
        batch=0,
        workers=(worker.name,),
        processors=(worker.processor,),
    )


def _of_pieces(
    receipt: Receipt,
    plan: Plan,
    seconds: Mapping[str, float],
    pieces: Sequence[Piece],
    tiles: tuple[TileFidelity, ...],
) -> Receipt:
    """The receipt of a shard of full resolution; tiles: how faithful they are."""
    rows, columns = plan.grid.shard_block((receipt.y, receipt.x))
    routes = plan.routes[rows.start : rows.stop, columns.start : columns.stop]
    counts = {tier.label: int((routes == index).sum()) for index, tier in enumerate(plan.tiers)}
    costs = tile_costs(plan, pieces)
    settings = {
        tier.label: given
        for tier, given in zip(plan.tiers, plan.settings, strict=True)
        if given and counts[tier.label]
    }
    retreats = {
        plan.tiers[piece.work.tier].label
        for piece in pieces
        if piece.batch < plan.batch[piece.work.tier]
    }
    worst_tile = worst(tiles)
    return replace(
        receipt,
        tiles=counts,
        cost=sum(piece.macs for piece in pieces),
        seconds=seconds,
        batch=min((piece.batch for piece in pieces), default=0),
        retreats=tuple(sorted(retreats)),
        tile_costs=tuple((*tile, *cost) for tile, cost in sorted(costs.items())),
        settings=settings,
        fidelity=None if worst_tile is None else worst_tile[2],
        tile_fidelity=tiles,
        workers=tuple(sorted({*receipt.workers, *(piece.worker for piece in pieces)})),
        processors=tuple(sorted({*receipt.processors, *(piece.processor for piece in pieces)})),
    )


def _enlarged(
    worker: Worker, plan: Plan, shard_input: ShardInput, works: Sequence[Work]
) -> list[Piece]:
    """The pieces that a worker makes of some windows."""
    engine = worker.engine(plan, plan.settings, {work.tier for work in works})
    made = enlarge(engine, shard_input, works)
    return [replace(piece, worker=worker.name, processor=worker.processor) for piece in made]


def verified(output: str, receipt: Receipt) -> np.ndarray:
    """The pixels of a written shard (c, H, W). Damaged: they are not those of its receipt."""
    pixels = _pixels(output, receipt)
    if (difference := _difference(output, receipt, pixels)) is not None:
        raise Damaged(difference.text)
    return pixels


def _pixels(output: str, receipt: Receipt) -> np.ndarray:
    return store.read_shard(output, receipt.level, (receipt.y, receipt.x))


def _difference(output: str, receipt: Receipt, pixels: np.ndarray) -> Difference | None:
    digest = pixels_sha256(pixels)
    if tuple(pixels.shape) == tuple(receipt.shape) and digest == receipt.pixels_sha256:
        return None
    return Difference(
        f"{output} level {receipt.level} shard {receipt.y}.{receipt.x} has checksum"
        f" {digest[:12]}, its receipt says {receipt.pixels_sha256[:12]}; tierscale verify"
        " --heal makes it again",
        digest,
    )


@contextmanager
def writing(plan: Plan, output: str) -> Iterator[None]:
    """In it, a part of an output is written.

    Damaged: the output is another plan's by now, or cannot be written any more.
    """
    ownership.check_plan(output, plan.digest)
    try:
        yield
    except Refused as error:  # it could be written when the run began
        raise Damaged(str(error)) from error
