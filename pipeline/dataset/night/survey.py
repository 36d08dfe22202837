"""What a night finds before it enlarges anything: sources, outputs, and disks that are missing."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.listing import Changes, Late, record_listing
from tierscale.pipeline.dataset.night.reach import folders_above
from tierscale.pipeline.dataset.night.task import ArchiveTask
from tierscale.pipeline.dataset.scan import content_sha256, missing_outputs, scan
from tierscale.pipeline.errors import Interrupted

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    changes: in the archive. problems: sentences on what is wrong beside single images. closed:
    whether the disk of the outputs is missing, so that nothing may be enlarged.
    """

    changes: Changes
    problems: tuple[str, ...] = ()
    closed: bool = False


def survey(task: ArchiveTask, ledger: Ledger, stop: threading.Event, until: float) -> Survey:
    """Bring the ledger up to what lies in the archive and among the outputs.

    until: when the window closes, by the ledger's clock; contents that were not compared by then
    stay in doubt. Interrupted: `stop` was set.
    """
    problems: list[str] = []

    def check_time() -> None:
        if stop.is_set():
            raise Interrupted
        if ledger.clock() >= until:
            raise Late

    changes = record_listing(
        ledger,
        _interruptible(scan(task.archive, problems.append), stop),
        lambda source: content_sha256(source, check_time),
        lambda listed: task.settling.waits(listed, ledger.clock()),
    )
    if changes.all_gone and not problems:
        problems.append(
            f"none of the {changes.gone} images that are known lies in {task.archive} any more;"
            " check whether its disk is mounted, or name another --ledger if the archive was"
            " emptied"
        )
    found = _OutputSurvey(task, ledger, problems.append, stop)
    unmounted = [] if task.overwrite else found.unmounted()
    problems.extend(
        f"none of the {count} outputs that are known lies in {folder} any more; check whether its"
        " disk is mounted, or give --overwrite if they were deleted on purpose"
        for folder, count in unmounted
    )
    found.requeue([folder for folder, _ in unmounted])
    return Survey(changes, tuple(problems), task.output in dict(unmounted))


def _interruptible(items: Iterable[Item], stop: threading.Event) -> Iterator[Item]:
    """The items, until `stop` is set. Interrupted: it is."""
    for item in items:
        if stop.is_set():
            raise Interrupted
        yield item


class _OutputSurvey:
    """The outputs of what is done: those that lie where they belong, and those that are missing."""

    def __init__(
        self,
        task: ArchiveTask,
        ledger: Ledger,
        problem: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self.task, self.ledger = task, ledger
        self._output_of = task.output_paths().of
        self.sources: dict[str, str] = {}
        # Outputs that belong elsewhere by now, because the task names another place.
        self.moved: list[str] = []
        for source, output in ledger.done_outputs():
            if self._output_of(source) == output:
                self.sources[output] = source
            else:
                self.moved.append(source)
        self.missing = set(_interruptible(missing_outputs(self.sources, problem), stop))

    def unmounted(self) -> list[tuple[str, int]]:
        """Folders whose disk seems to be missing, and how many outputs are known in each."""
        return unmounted(self.task.output, self.sources.keys(), self.missing)

    def requeue(self, unmounted: Collection[str]) -> None:
        """Make pending what has to be made again; nothing is written into `unmounted` folders."""
        apart = [f"{folder}/" for folder in unmounted]

        def inside(output: str) -> bool:
            return any(output.startswith(folder) for folder in apart)

        lost = [self.sources[output] for output in self.missing if not inside(output)]
        self.ledger.requeue([*self.moved, *lost])
        if apart:
            pending = self.ledger.pending_sources()
            self.ledger.hold_back(one for one in pending if inside(self._output_of(one)))


def unmounted(root: str, known: Collection[str], missing: Collection[str]) -> list[tuple[str, int]]:
    """Folders that hold none of the outputs that are known there, and how many those are.

    One output that is missing was deleted, and is made again. Where all are missing, more than one,
    their disk is not mounted: in the whole root, or in a folder that is empty, as mount points are.
    """
    if len(known) > 1 and len(missing) == len(known):
        return [(root, len(known))]
    lost = Counter(folder for output in missing for folder in folders_above(output, root))
    wanted = {folder: count for folder, count in lost.items() if count > 1}
    total = Counter(
        folder
        for output in (known if wanted else ())
        for folder in folders_above(output, root)
        if folder in wanted
    )
    found: list[tuple[str, int]] = []
    for folder in sorted(folder for folder, count in wanted.items() if total[folder] == count):
        inside = any(folder.startswith(f"{above}/") for above, _ in found)
        if not inside and _is_empty(folder):
            found.append((folder, wanted[folder]))
    return found


def _is_empty(folder: str) -> bool:
    """Whether a local folder is there and holds nothing; a URI is no folder."""
    path = Path(folder)
    return "://" not in folder and path.is_dir() and next(path.iterdir(), None) is None
