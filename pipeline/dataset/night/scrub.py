"""Finished outputs that are read again, some each night, so that damage is found while it is small.

What is damaged is made again from its source, as long as there is one.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.prescan import Progress
from tierscale.pipeline.run.verify import Look, Verification, verify_output
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.storage.paths import exists, place


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What was read again.

    outputs: number of those that were. damage: sentences on what was found. healed: number of
    shards that were made again. problems: of the damage, what could not be healed.
    """

    outputs: int = 0
    damage: tuple[str, ...] = ()
    healed: int = 0
    problems: tuple[str, ...] = ()


class Window(threading.Event):
    """An event that is set as soon as another one is, or a time has come.

    over: whether that time has come.
    """

    def __init__(self, stop: threading.Event, over: Callable[[], bool]) -> None:
        super().__init__()
        self._stop, self._over = stop, over

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._stop.is_set() or self._over()


def scrub(
    ledger: Ledger, pool: Pool, share: float, window: threading.Event, progress: Progress
) -> Scrubbed:
    """Read a share of the finished outputs, longest unread first, and make damaged shards again.

    share: 0 to 1. window: once it is set, what was not read is left to another night.
    """
    found = Scrubbed()
    outputs = ledger.oldest_outputs(share)
    for done, (source, output) in enumerate(outputs):
        progress("read again", done, len(outputs))
        try:
            seen = _read_back(output, pool, window)
        except Interrupted:
            break
        if seen.good:
            ledger.record_read_back(source)
        found = Scrubbed(
            found.outputs + 1,
            found.damage + seen.problems,
            found.healed + seen.healed,
            found.problems + (() if seen.good else seen.problems),
        )
    return found


def _read_back(output: str, pool: Pool, window: threading.Event) -> Verification:
    """What is found in one output; what keeps it from being read or healed is a problem."""
    if window.is_set():
        raise Interrupted
    if not exists(place(output)) and not Folder(output).exists():
        # Its source is gone too, or it would be work: there is nothing to keep.
        return Verification(0)
    try:
        return verify_output(output, pool, Look(heal=True, stop=window))
    except (Refused, Damaged) as error:
        return Verification(0, (str(error),))
