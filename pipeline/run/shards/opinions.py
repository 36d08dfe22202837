"""Shards that are not as faithful to their source as their networks should be: a second opinion.

A shard whose worst tile is below the bound of its networks is made again by another worker. Equal
bytes are the networks' doing, which some pictures bring about: half-tones, noise, patterns of
single pixels. Of different bytes a third worker decides, and the one that is outvoted is ended.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tierscale.models import weights
from tierscale.models.fidelity import AVERAGED, Bound, bound_of
from tierscale.models.mixed import parse_mix
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.inference.fidelity import FidelityRule, worst
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.output.summary import WorstTile
from tierscale.pipeline.plan.plan import Draft, Plan
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.run.workers.pool import Others, Pool
from tierscale.pipeline.run.workers.shard_tasks import RECORDED
from tierscale.pipeline.wording import counted

# Workers that may be asked for one shard.
MOST = 3
# Where the networks of a shard take fewer multiply-adds than this for each input pixel, looking at
# all of its tiles would take more than a thirtieth of the time (benchmarks/results.json): one row
# of tiles in so many is looked at. Small images are soon made, and looked at all over.
CHEAP, ONE_IN = 60_000, 3
SMALL_PIXELS = 1 << 18
# Of networks that nobody measured, such as somebody's file without a card: below all that the zoo
# makes of pictures, and above what is black or white.
UNMEASURED = Bound(15.0)
# What it means when a shard is made twice alike, by as many workers.
CONFIRMED = {
    "one": "but by one worker, as there was no other; look at the tile, and check the machine",
    "two": "so it is the networks' doing",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of the times that a shard is made. seen: what other workers made of it before."""

    rule: FidelityRule = RECORDED
    seen: tuple[Receipt, ...] = ()

    @property
    def others(self) -> Others:
        """The workers that may make it.

        A second time the same one may, where there is one alone: what passes by is then seen. Who
        decides between two must be a third.
        """
        names = frozenset(worker for receipt in self.seen for worker in receipt.workers)
        return Others(names, strictly=len(self.seen) > 1)


class Opinions:
    """How faithful the shards of an image must be, and what is done about those that are not.

    lowest: fidelity of the worst shard that workers agreed upon, dB; inf: there is none.
    """

    def __init__(self, plan: Plan, pool: Pool, output: str) -> None:
        self.plan, self.pool, self.output = plan, pool, output
        self.lowest = float("inf")
        self._confirmed: Counter[str] = Counter()
        self._ended: dict[str, str] = {}
        self._bounds = [bound_of_tier(tier) for tier in plan.tiers]
        self._block = block_of(plan, self._bounds)
        self._costs = np.array([tier.cost for tier in plan.tiers]) * plan.rgb_count
        self._alone: dict[Key, Receipt] = {}
        self._suspects: list[Receipt] = []

    def first(self, key: Key) -> Attempt:
        """The first attempt at a shard."""
        return Attempt(self._rule((key[1], key[2]))) if key[0] == 0 else Attempt()

    def _rule(self, shard: tuple[int, int]) -> FidelityRule:
        """How a shard is looked at: by the lowest bound of the tiers that show in it."""
        rows, columns = self.plan.grid.shard_block(shard)
        routes = self.plan.routes[rows.start : rows.stop, columns.start : columns.stop]
        # Tiers of the tiles around show too, where they fade.
        around = self.plan.routes[
            max(0, rows.start - 1) : rows.stop + 1, max(0, columns.start - 1) : columns.stop + 1
        ]
        # A picture of patterns falls below everywhere. What is no worse than shards that were made
        # twice need not be made twice.
        bounds = [self._bounds[tier].decibels for tier in np.unique(around)]
        lowest = min(*bounds, self.lowest)
        small = self.plan.shape[1] * self.plan.shape[2] <= SMALL_PIXELS
        every = 1 if small or self._costs[routes].mean() >= CHEAP else ONE_IN
        return FidelityRule(lowest, self._block, every)

    def again(self, receipt: Receipt, attempt: Attempt) -> Attempt | None:
        """The next attempt at a shard of which `attempt` made a receipt; None: it is done.

        Damaged: no two workers agree.
        """
        if not attempt.seen and not attempt.rule.doubts(receipt.fidelity):
            if receipt.level == 0:
                self._alone[receipt.key] = replace(receipt, tile_costs=(), tile_fidelity=())
            return None
        others = [one for one in attempt.seen if not receipt.agrees(one)]
        if len(others) < len(attempt.seen):
            self._agree(receipt, attempt, others)
            return None
        seen = (*attempt.seen, receipt)
        if len(seen) == MOST:
            Folder(self.output).remove([receipt.key])
            raise Damaged(self._sentence(seen))
        return Attempt(attempt.rule, seen)

    def _agree(self, receipt: Receipt, attempt: Attempt, others: list[Receipt]) -> None:
        """Take note of a shard that two workers made alike; those who made another are ended."""
        self._alone.pop(receipt.key, None)
        before = {worker for one in attempt.seen if one not in others for worker in one.workers}
        if attempt.rule.doubts(receipt.fidelity) and receipt.fidelity is not None:
            self._confirmed["one" if before & {*receipt.workers} else "two"] += 1
            self.lowest = min(self.lowest, receipt.fidelity)
        sound = before | {*receipt.workers}
        for worker in {worker for one in others for worker in one.workers} - sound:
            self.pool.dismiss(worker)
            self._ended[worker] = (
                f"worker {worker} was ended: of shard {receipt.y}.{receipt.x} it made other bytes"
                " than two others, which agree; check its machine"
            )
            self._suspects += [one for one in self._alone.values() if worker in one.workers]

    def suspects(self) -> list[tuple[Key, Attempt]]:
        """Shards that workers made alone which were ended since: each is to be made once more."""
        suspects, self._suspects = self._suspects, []
        keys = {one.key: one for one in suspects if self._alone.pop(one.key, None) is not None}
        return [(key, Attempt(self._rule((key[1], key[2])), (one,))) for key, one in keys.items()]

    def notes(self) -> list[str]:
        """What is to be said of it in the summary."""
        notes = sorted(self._ended.values())
        for workers, count in sorted(self._confirmed.items()):
            shards = counted(count, "shard")
            notes.append(
                f"{shards} with more difference from the source than is usual for the networks (the"
                f" worst tile has {self.lowest:.1f} dB): made twice with the same bytes,"
                f" {CONFIRMED[workers]}"
            )
        return notes

    def _sentence(self, seen: tuple[Receipt, ...]) -> str:
        one = min(seen, key=lambda receipt: receipt.fidelity or 0.0)
        workers = ", ".join(sorted({worker for receipt in seen for worker in receipt.workers}))
        return (
            f"{self.output} level {one.level} shard {one.y}.{one.x} was made {len(seen)} times and"
            f" no two results agree ({worst_tile(self.plan, one)}; workers {workers}); check these"
            " machines, then run the same command again: finished shards are kept"
        )


def bound_of_tier(tier: Tier) -> Bound:
    """From where on the tiles of a tier are doubted, by the card of its network.

    Of a mix it is the lower one of its parts'.
    """
    try:
        base, _ = weights.parse_turns(tier.name)
        names = [part.name for part in parse_mix(base)] or [base]
        bounds = [bound_of(weights.card(name)) or UNMEASURED for name in names]
    except (OSError, ValueError):  # what lies beside somebody's weights may be anything
        return UNMEASURED
    return Bound(min(one.decibels for one in bounds), max(one.block for one in bounds))


def block_of(draft: Draft, bounds: Sequence[Bound]) -> int:
    """Side of the squares of source pixels that are averaged before shards are compared.

    Networks of the photo family take grain away, which is no fault.
    """
    blocks = [bound.block for bound in bounds]
    return max([1, *blocks, *([AVERAGED] if draft.family == "photo" else [])])


def worst_tile(plan: Plan, receipt: Receipt) -> WorstTile | None:
    """The tile of a shard that differs most from its source; None: none was compared."""
    tile = worst(receipt.tile_fidelity)
    return None if tile is None else WorstTile(tile[2], tile[0] * plan.tile, tile[1] * plan.tile)


def worst_of(plan: Plan, fidelity: np.ndarray) -> WorstTile | None:
    """The same of a whole image; fidelity: of its tiles (rows, columns), NaN: not known."""
    if np.isnan(fidelity).all():
        return None
    row, column = np.unravel_index(np.nanargmin(fidelity), fidelity.shape)
    found = float(fidelity[row, column])
    return WorstTile(found, int(row) * plan.tile, int(column) * plan.tile)
