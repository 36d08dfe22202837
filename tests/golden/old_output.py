"""Makes version_0_1.tar.gz: outputs as version 0.1 left them, for later versions to go on with.

    git archive ad46f97 | tar x -C LAST
    git archive 3d05c26 | tar x -C FIRST
    python -m tests.golden.old_output LAST FIRST FILE.tar.gz

LAST is the last commit of version 0.1.0, FIRST an earlier one, whose zoo holds other weights. Both
are run as they were, by the interpreter that runs this. It is kept to tell how the archive came
about, not to be run again: what a later version makes is not an old output. README.md says how the
archive is used.
"""

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.golden.inputs import pixels

# Whole seconds, so that a tar brings the time back exactly; the ledger looks at it.
CHANGED = 1_700_000_000
NIGHT = "2023-11-16"
ALONE = ("--ray", "none", "--workers", "1", "--json")
TILED = ("--tile", "8", "--tiers", "bicubic,edsr-x4", *ALONE)
# What nobody reads again.
DROPPED = ("preview.png", "routing.png", "report.html")


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """8-bit RGB without noise, so that the archive stays small; edges come first."""
    return np.ascontiguousarray(
        pixels(height, 2 * width, 3, seed=seed)[:, width // 2 : width // 2 + width][:, ::-1],
    )


@dataclass(frozen=True, slots=True)
class Version:
    """A checkout of version 0.1.0."""

    checkout: Path

    def start(self, module: str, *arguments: object) -> "subprocess.Popen[str]":
        """Begin a command of this version."""
        about = self.checkout / "tierscale-0.1.0.dist-info/METADATA"
        about.parent.mkdir(exist_ok=True)
        about.write_text("Metadata-Version: 2.1\nName: tierscale\nVersion: 0.1.0\n")
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.checkout,
            env={**os.environ, "PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str, *arguments: object, code: int = 0) -> dict[str, object]:
        """Run a command, which must end with an exit code; its JSON object."""
        process = self.start(module, *arguments)
        out, err = process.communicate()
        if process.returncode != code:
            raise RuntimeError(f"exit code {process.returncode} and not {code}: {err}")
        found: dict[str, object] = json.loads(out)
        return found

    def stopped(self, source: Path, output: Path) -> None:
        """Begin an output, and end it by SIGTERM after some shards; as often as it takes."""
        receipts, code = Path(f"{output}.tierscale/receipts/0"), 0
        while code != 143:
            for path in (output, receipts.parents[1]):
                shutil.rmtree(path, ignore_errors=True)
            process = self.start("jobs.cli", "upscale", source, output, *TILED)
            while process.poll() is None and not any(receipts.glob("*.json")):
                time.sleep(0.0005)
            process.send_signal(signal.SIGTERM)
            process.communicate()
            code = process.returncode
        print(output.name, "has receipts", sorted(path.stem for path in receipts.iterdir()))


def aged(path: Path) -> None:
    """Give a source a time of whole seconds, long past."""
    os.utime(path, (CHANGED, CHANGED))


def single(version: Version, root: Path, width: int) -> None:
    """A finished output, and another of the same source, stopped after some shards."""
    root.mkdir()
    source = root / "source.tif"
    tifffile.imwrite(
        source, picture(8, width, 30), photometric="rgb", tile=(16, 32), compression="zlib"
    )
    aged(source)
    version.run("jobs.cli", "upscale", source, root / "done.zarr", *TILED)
    version.stopped(source, root / "half.zarr")


def three(folder: Path, seed: int) -> None:
    """Three PNGs, of which one cannot be read."""
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(picture(12, 20, seed)).save(folder / "a.png")
    Image.fromarray(picture(14, 10, seed + 1)).save(folder / "deep/b.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:150])
    for path in folder.rglob("*.png"):
        aged(path)


def archive(version: Version, root: Path) -> None:
    """A night over three images: two are enlarged, one cannot be read."""
    three(root / "archive", 31)
    until = datetime.now() + timedelta(hours=3)
    places: Sequence[object] = ("--archive", root / "archive", "--output", root / "out")
    ledger_file = root / "ledger.db"
    line = (*places, "--ledger", ledger_file, "--until", f"{until:%H:%M}", *TILED)
    version.run("jobs.cli", "nightly", *line, code=1)
    with contextlib.closing(sqlite3.connect(ledger_file)) as ledger:
        # The night is put into the past, so that it is an earlier one whenever a test carries on.
        ledger.execute(
            "UPDATE sources SET night = ?, counted = iif(counted IS NULL, NULL, ?), noted = ?",
            (NIGHT, NIGHT, CHANGED + 86400),
        )
        ledger.commit()
        ledger.execute("PRAGMA journal_mode = DELETE")
        print(ledger.execute("SELECT source, state, attempts, error FROM sources").fetchall())
    shutil.rmtree(root / "ledger.db.reports")


def manifest(version: Version, root: Path) -> None:
    """A manifest whose images share a budget, but for one with options of its own."""
    three(root / "in", 33)
    rows = (("a.png", "", ""), ("deep/b.png", 2, "bicubic,fsrcnn-x2"), ("broken.png", "", ""))
    with (root / "m.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("source", "scale", "tiers"))
        table.writerows((f"{root}/in/{name}", *options) for name, *options in rows)
    line = ("--manifest", root / "m.csv", "--output-root", root / "out", "--budget", "0.8", *ALONE)
    version.run("jobs.upscale_dataset", *line, code=1)


def main(last: str, first: str, target: str) -> None:
    """Make everything and pack it."""
    # Always the same place, so that what was absolute in it can be found again: README.md names it.
    root = Path(tempfile.gettempdir()) / "tierscale-0.1"
    root.mkdir()
    try:
        version = Version(Path(last).resolve())
        single(version, root / "single", 264)
        archive(version, root / "nightly")
        manifest(version, root / "manifest")
        single(Version(Path(first).resolve()), root / "first", 136)
        for name in DROPPED:
            for path in root.rglob(name):
                path.unlink()
        with tarfile.open(target, "w:gz", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(root.iterdir()):
                tar.add(path, arcname=path.name, filter=_nobody)
    finally:
        shutil.rmtree(root)
    print(f"{target}: {os.path.getsize(target)} bytes")


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that tells nothing of who packed it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(*sys.argv[1:])
