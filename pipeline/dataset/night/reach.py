"""What is out of reach: an archive that went away, or the disk of the outputs."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.storage.paths import readable
from tierscale.pipeline.storage.sidecar import PLAN_NAME, sidecar

# Other sources, or outputs, that are looked at before a whole folder is given up.
LOOKS = 8


def folders_above(path: str, root: str) -> Iterator[str]:
    """The folders in which a path below `root` lies, from the innermost one to the root itself."""
    folder = path
    while folder != root and len(folder) > len(root):
        folder = folder.rpartition("/")[0] or "/"
        yield folder


def out_of_reach(ledger: Ledger, archive: str, source: str) -> str | None:
    """The outermost folder of an archive whose sources cannot be read any more.

    source: one that was listed and cannot be read now. None: it is the only one, as far as is seen.
    Of each folder above it some other sources are tried, once each.
    """
    reached, several = source, False
    for folder in folders_above(source, archive):
        others = ledger.listed_below(folder, reached, LOOKS)
        if any(map(readable, others)):
            return reached if several else None
        several = several or bool(others)
        reached = folder
    return archive if several or not readable(archive) else None


class OutputWatch:
    """Whether the outputs still lie on the disk on which the night began; threads may ask it.

    root: their folder or URI. known: some outputs that lie there.
    """

    def __init__(self, root: str, known: Iterable[str]) -> None:
        self.root = root
        self._known = deque(known, LOOKS)
        self._disk = self._identity()
        self._lock = threading.Lock()

    def note(self, output: str) -> None:
        """Note an output that was begun there. Damaged: it was not, because the disk is gone."""
        if self.gone():
            raise Damaged(f"the disk of {self.root} is gone, and {output} is not begun elsewhere")
        self._known.append(output)

    def gone(self) -> bool:
        """Whether the folder is another one than before, and holds none of the known outputs.

        A disk that was mounted anew, by an automounter for example, is as good as before.
        """
        with self._lock:
            now = self._identity()
            if now == self._disk:
                return False
            known = list(self._known)
            if known and not any((sidecar(output) / PLAN_NAME).exists() for output in known):
                return True
            self._disk = now
            return False

    def _identity(self) -> tuple[int, int] | None:
        """What tells one folder from another that is mounted in its place; None: there is none."""
        if "://" in self.root:
            return None
        try:
            status = os.stat(self.root)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def nearest_folder(output: str) -> Path:
    """The innermost local folder on the way to `output` that is there."""
    folder = Path(output)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
