"""Nights in the middle of which the archive goes away, or the disk of the outputs."""

import contextlib
import json
import shutil
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.chaos.trial import OPTIONS, Missed, Trial

IMAGES = 3


class Night:
    """A nightly over some copies of a trial's source; the trial then is about their outputs."""

    def __init__(self, trial: Trial) -> None:
        root, suffix = trial.output.parent, trial.source.suffix
        self.trial, self.ledger = trial, root / "ledger.db"
        self.archive, self.outputs = root / "archive", root / "outputs"
        self.archive.mkdir()
        names = [f"{number}{suffix}" for number in range(IMAGES)]
        for name in names:
            shutil.copy(trial.source, self.archive / name)
        trial.output, *trial.others = (self.outputs / f"{name}.zarr" for name in names)

    def begin(self) -> None:
        """Start the nightly."""
        until = datetime.now() + timedelta(hours=3)
        places = {"--archive": self.archive, "--output": self.outputs, "--ledger": self.ledger}
        arguments = [part for place in places.items() for part in place]
        command = ("nightly", *arguments, "--until", f"{until:%H:%M}", *OPTIONS, "--json")
        self.trial.stage.driver().begin(*command)

    def end(self, code: int, *words: str) -> None:
        """Wait for the nightly, and see that it ended so and blames no image.

        Missed: it was done before it was disturbed.
        """
        ended = self.trial.stage.driver().end()
        self.trial.ended.append(ended)
        if code and ended.code == 0:
            raise Missed
        assert ended.code == code, f"exit code {ended.code}, not {code}: {ended.err[-600:]}"
        said = [line for line in ended.err.splitlines() if line.startswith("tierscale: ")]
        assert len(said) == bool(code), f"no single sentence: {ended.err[-600:]!r}"
        assert all(word in said[0] for word in words), f"{words} are not all in {said[0]!r}"
        left = self.rows() - {("done", 0), ("pending", 0)}
        assert not left, f"images are blamed: {left}"

    def rows(self) -> set[tuple[str, int]]:
        """State and failed attempts of the images."""
        with contextlib.closing(sqlite3.connect(self.ledger)) as database:
            return set(database.execute("SELECT state, attempts FROM sources"))

    def again(self) -> dict[str, int]:
        """The next night does what is left; its summary."""
        self.begin()
        self.end(0)
        summary: dict[str, int] = json.loads(self.trial.ended[-1].out)
        assert self.rows() == {("done", 0)} and not summary["left"], summary
        return summary


def unmount(folder: Path) -> Path:
    """Leave an empty folder where a disk was mounted; where the disk is now."""
    disk = folder.with_name(f"{folder.name} away")
    folder.rename(disk)
    folder.mkdir()
    return disk


def mount(folder: Path, disk: Path) -> None:
    """Mount the disk again, over whatever was written into the empty folder."""
    shutil.rmtree(folder)
    disk.rename(folder)


def archive_gone(trial: Trial) -> None:
    """The archive goes away in the middle of a night: no image is blamed, and none is lost."""
    night = Night(trial)
    night.begin()
    trial.await_receipts(trial.chance.randint(1, 5))
    disk = unmount(night.archive)
    night.end(1, str(night.archive), "is out of reach")
    if trial.chance.randrange(2):  # and is not back the next night
        night.begin()
        night.end(1, "none of the", "check whether its disk is mounted")
    mount(night.archive, disk)
    night.again()


def outputs_unmounted(trial: Trial) -> None:
    """The disk of the outputs goes away during a night, or is not there at the begin of one."""
    night = Night(trial)
    during = trial.chance.randrange(2) == 0
    night.begin()
    if during:
        trial.await_receipts(trial.chance.randint(1, 5))
        disk = unmount(night.outputs)
        night.end(1, str(night.outputs), "is not mounted any more")
        # The first driver could not take its leases away, and lives on the stage.
        trial.stage.dismiss()
    else:
        night.end(0)
        disk = unmount(night.outputs)
        night.begin()
        night.end(1, f"none of the {IMAGES} outputs", "check whether its disk is mounted")
        assert not list(night.outputs.iterdir()), "something was written where no disk is"
    mount(night.outputs, disk)
    summary = night.again()
    assert during or (summary["untouched"] == IMAGES and summary["done"] == IMAGES), summary
