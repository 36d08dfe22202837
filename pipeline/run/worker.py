"""What a worker does, wherever it runs: in a thread of a plain loop, or as a Ray actor. Loads,
keeps, and calls one function.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Upscaler
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.arrays.ingest import ingest
from tierscale.pipeline.formats.registry import Selection, Source, open_image
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.geometry.layout import Piece
from tierscale.pipeline.inference import difficulty
from tierscale.pipeline.inference import statistics as automatic
from tierscale.pipeline.inference.pyramid import half
from tierscale.pipeline.inference.shard import Device, Read, enlarge, finish, read_input, tile_costs
from tierscale.pipeline.inference.timing import seconds_per_pixel
from tierscale.pipeline.output import store
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.pictures.preview import write_pictures
from tierscale.pipeline.output.receipts import Folder, Receipt, pixels_sha256
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run import allocator

# Opened images that a worker keeps at hand.
OPEN_SOURCES = 2


class Worker:
    """Networks on one device, and the images they are at work on.

    Nothing that is remembered between calls changes a pixel, so a restarted worker gives the same
    ones. threads: torch threads, as the plans say. device: "cpu", "cuda".
    """

    def __init__(self, device: str, threads: int) -> None:
        allocator.settle()
        torch.set_num_threads(threads)
        store.quiet_threads()
        self.device = Device(device)
        self.upscalers: dict[str, Upscaler] = {}
        self.sources: OrderedDict[str, Source] = OrderedDict()

    def ready(self) -> bool:
        """True once the worker is up. Refused: its torch cannot use the device that it was
        given.
        """
        if self.device.name == "cuda" and not torch.cuda.is_available():
            raise Refused(
                f"a worker has a GPU that its torch {torch.__version__} cannot use; install a CUDA"
                " build, or use --device cpu"
            )
        return True

    def ingest(self, uri: str, selection: Selection, path: str, max_bytes: int | None) -> float:
        """Bring a source that cannot be read by windows into a zarr array at `path`; seconds
        taken.
        """
        began = time.perf_counter()
        with open_image(uri, selection, max_bytes) as source:
            ingest(source, path, replaceable=True)
        return time.perf_counter() - began

    def measure(self, plan: Plan, rows: Span, nodata: float | None) -> tuple[float, float]:
        """Smallest and largest value of some pixel rows."""
        return difficulty.measure(self._read(plan), rows, plan.shape[2], nodata, plan.alpha)

    def score(self, plan: Plan, rows: Span) -> np.ndarray:
        """Predicted errors of the tiles in some tile rows: (rows, columns, tiers)."""
        assert plan.levels is not None
        return difficulty.score(
            self._read(plan),
            plan.grid,
            rows,
            plan.scout,
            len(plan.tiers),
            plan.levels,
            plan.colour,
            plan.alpha,
        )

    def look(self, plan: Plan, tier: int, places: Sequence[Rect]) -> automatic.Seen:
        """What a tier that decides by statistics sees of some places."""
        return automatic.look_at(
            plan, self._read(plan), self._loaded(plan, {tier})[tier], places, self.device.name
        )

    def speed(self, plan: Plan, tier: int) -> float:
        """Seconds that a tier takes for each input pixel."""
        return seconds_per_pixel(
            plan, self._read(plan), tier, self._loaded(plan, {tier})[tier], self.device
        )

    def enlarge(
        self, plan: Plan, shard: tuple[int, int], tiers: Sequence[int]
    ) -> tuple[int, list[Piece]]:
        """How many pieces of a shard some of the tiers make, and the pieces."""
        works = [work for work in plan.works(shard) if work.tier in tiers]
        given = read_input(plan, self._read(plan), shard, works)
        pieces = enlarge(
            plan, given, works, self._loaded(plan, {work.tier for work in works}), self.device
        )
        return len(pieces), pieces

    def finish(
        self, plan: Plan, output: str, shard: tuple[int, int], pieces: Sequence[Piece] = ()
    ) -> Receipt:
        """Make what is missing of a shard, stitch, write it, and then its receipt."""
        began = time.perf_counter()
        works = plan.works(shard)
        made = {piece.work.tier for piece in pieces}
        missing = [work for work in works if work.tier not in made]
        given = read_input(plan, self._read(plan), shard, works)
        reading = time.perf_counter()
        pieces = [
            *pieces,
            *enlarge(
                plan,
                given,
                missing,
                self._loaded(plan, {work.tier for work in missing}),
                self.device,
            ),
        ]
        # Overlapping parts of one tier agree to the last float only; a fixed order makes the bytes
        # the same wherever pieces came from.
        pieces.sort(key=lambda piece: works.index(piece.work))
        enlarging = time.perf_counter()
        # The networks' maps are free by now, and the shard's own buffers come on top.
        allocator.give_back()
        pixels = finish(plan, given, shard, pieces)
        # Floats of a whole shard, which are not needed while it is written.
        pieces = [piece.told() for piece in pieces]
        stitching = time.perf_counter()
        with writing(plan, output):
            store.write_shard(output, 0, shard, pixels)
            seconds = {
                "read": reading - began,
                "enlarge": sum(piece.milliseconds for piece in pieces) / 1000,
                "stitch": stitching - enlarging,
                "write": time.perf_counter() - stitching,
            }
            receipt = self._receipt(plan, 0, shard, pixels, seconds, pieces)
            Folder(output).write(receipt)
        del pixels
        allocator.give_back()
        return receipt

    def pyramid(self, plan: Plan, output: str, level: int, shard: tuple[int, int]) -> Receipt:
        """Make one shard of a smaller level from the level before, and then its receipt. Damaged: a
        shard there is not as its receipt says; made from it, this one would be wrong too, and no
        checksum would ever tell.
        """
        began = time.perf_counter()
        pixels = half(
            store.shards_of(output, level - 1),
            shard,
            lambda at: self._written(plan, output, (level - 1, *at)),
        )
        with writing(plan, output):
            store.write_shard(output, level, shard, pixels)
            receipt = self._receipt(
                plan, level, shard, pixels, {"pyramid": time.perf_counter() - began}, ()
            )
            Folder(output).write(receipt)
        del pixels
        allocator.give_back()
        return receipt

    def draw(self, plan: Plan, output: str) -> None:
        """Write the pictures beside a finished output."""
        write_pictures(output, plan)

    def verify(self, output: str, receipt: Receipt) -> str | None:
        """What is wrong with a written shard, in words; None if it is as its receipt says."""
        try:
            verified(output, receipt)
        except Damaged as error:
            return str(error)
        return None

    def _written(self, plan: Plan, output: str, key: Key) -> np.ndarray:
        """The pixels of a shard that has its receipt (c, H, W)."""
        return verified(output, Folder(output).receipt(plan.digest, key))

    def _receipt(
        self,
        plan: Plan,
        level: int,
        shard: tuple[int, int],
        pixels: np.ndarray,
        seconds: dict[str, float],
        pieces: Sequence[Piece],
    ) -> Receipt:
        costs = tile_costs(plan, pieces)
        tiles: dict[str, int] = {}
        if level == 0:
            assert plan.routes is not None
            rows, columns = plan.grid.shard_block(shard)
            block = plan.routes[rows.start : rows.stop, columns.start : columns.stop]
            tiles = {
                tier.label: int((block == index).sum()) for index, tier in enumerate(plan.tiers)
            }
        return Receipt(
            plan=plan.digest,
            level=level,
            y=shard[0],
            x=shard[1],
            shape=(pixels.shape[0], pixels.shape[1], pixels.shape[2]),
            pixels_sha256=pixels_sha256(pixels),
            bytes=pixels.nbytes,
            tiles=tiles,
            cost=sum(piece.macs for piece in pieces),
            seconds=seconds,
            device=self.device.name,
            batch=min((piece.batch for piece in pieces), default=0),
            retreats=tuple(
                sorted(
                    {
                        plan.tiers[p.work.tier].label
                        for p in pieces
                        if p.batch < plan.batch[p.work.tier]
                    }
                )
            ),
            tile_costs=tuple((*tile, *cost) for tile, cost in sorted(costs.items())),
        )

    def _loaded(self, plan: Plan, tiers: set[int]) -> dict[int, Upscaler]:
        """The plan's upscalers, by tier index. Refused: the device or the weights here are not
        those of the plan.
        """
        if plan.device != self.device.name:
            raise Refused(
                f"the plan is for {plan.device} and this worker runs on {self.device.name}; use"
                f" --device {plan.device}"
            )
        for index in tiers:
            tier = plan.tiers[index]
            if tier.name not in self.upscalers:
                found = models.digest(tier.name)
                if found != tier.weights:
                    raise Refused(
                        f"the weights of {tier.name} here have digest {found[:12]}, the plan has"
                        f" {tier.weights[:12]}; install the same ones"
                    )
                self.upscalers[tier.name] = models.load(tier.name, self.device.name)
        return {index: self.upscalers[plan.tiers[index].name] for index in tiers}

    def _read(self, plan: Plan) -> Read:
        """A function that reads a window of the plan's image, counted from its region."""
        source = self._source(plan)
        region = plan.source.get("region")
        left, top = (region[0], region[1]) if region else (0, 0)

        def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
            return source.read(top + y0, top + y1, left + x0, left + x1)

        return read

    def _source(self, plan: Plan) -> Source:
        key = f"{plan.source['uri']}#{plan.digest if plan.routes is not None else plan.source['identity']}"
        if key not in self.sources:
            self.sources[key] = opened(plan)
            while len(self.sources) > OPEN_SOURCES:
                self.sources.popitem(last=False)[1].close()
        self.sources.move_to_end(key)
        return self.sources[key]


def opened(plan: Plan) -> Source:
    """The image that a plan reads, or the ingested copy of it. Damaged: the copy is not there any
    more.
    """
    uri = plan.source["uri"]
    if not plan.source.get("ingested"):
        return open_image(uri, Selection(**plan.source["selection"]))
    try:
        return open_image(uri)  # a copy holds the chosen image alone
    except (Refused, Damaged) as error:
        raise Damaged(
            f"{uri}: this copy of the source was taken away by another run, or this machine does"
            " not see it; give the same command again, with an output that all machines see"
        ) from error


def verified(output: str, receipt: Receipt) -> np.ndarray:
    """The pixels of a written shard (c, H, W). Damaged: they are not those of its receipt."""
    pixels = store.read_shard(output, receipt.level, (receipt.y, receipt.x))
    found = pixels_sha256(pixels)
    if tuple(pixels.shape) != tuple(receipt.shape) or found != receipt.pixels_sha256:
        raise Damaged(
            f"{output} level {receipt.level} shard {receipt.y}.{receipt.x} has checksum"
            f" {found[:12]}, its receipt says {receipt.pixels_sha256[:12]}; tierscale verify --heal"
            " does it again"
        )
    return pixels


@contextmanager
def writing(plan: Plan, output: str) -> Iterator[None]:
    """In it, a part of an output is written. Damaged: the output is another plan's by now, or
    cannot be written any more.
    """
    store.check_plan(output, plan.digest)
    try:
        yield
    except Refused as error:  # it could be written when the run began
        raise Damaged(str(error)) from error
