"""Makes version_0_1.tar.gz: outputs as version 0.1 left them, for later versions to go on with.

    python -m tests.golden.old_output FILE.tar.gz

It drives the commands of version 0.1. It is kept to tell how the archive came about, not to be run
again: what a later version makes is not an old output. README.md says how the archive is used.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import threading
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.golden.inputs import pixels

# Whole seconds, so that a tar brings the time back exactly; the ledger looks at it.
CHANGED = 1_700_000_000
NIGHT = "2023-11-16"
OPTIONS = ("--tile", "8", "--tiers", "bicubic,edsr-x4", "--ray", "none", "--workers", "1", "--json")


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """8-bit RGB without noise, so that the archive stays small; edges come first."""
    return np.ascontiguousarray(
        pixels(height, 2 * width, 3, seed=seed)[:, width // 2 : width // 2 + width][:, ::-1],
    )


def tierscale(*arguments: str | Path, code: int = 0) -> dict[str, object]:
    """Run a command of this version, which must end with an exit code; its JSON object."""
    from tierscale.jobs.cli.main import main

    out, err, ended = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            ended = int(error.code or 0)
    if ended != code:
        raise RuntimeError(f"exit code {ended} and not {code}: {err.getvalue()}")
    found: dict[str, object] = json.loads(out.getvalue())
    return found


def aged(path: Path) -> None:
    """Give a source a time of whole seconds, long past."""
    os.utime(path, (CHANGED, CHANGED))


def single(root: Path) -> None:
    """A finished output, and another of the same source, stopped after some shards."""
    root.mkdir()
    source = root / "source.tif"
    tifffile.imwrite(
        source,
        picture(24, 264, 30),
        photometric="rgb",
        tile=(32, 32),
        compression="zlib",
    )
    aged(source)
    tierscale("upscale", source, root / "done.zarr", *OPTIONS)
    receipts, over = root / "half.zarr.tierscale/receipts/0", threading.Event()

    def stop_soon() -> None:
        while not over.is_set():
            if receipts.is_dir() and any(receipts.glob("*.json")):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            over.wait(0.001)

    watcher = threading.Thread(target=stop_soon)
    watcher.start()
    try:
        tierscale("upscale", source, root / "half.zarr", *OPTIONS, code=143)
    finally:
        over.set()
        watcher.join()
    print(
        "shards that were written before the stop:",
        sorted(path.stem for path in receipts.iterdir()),
    )


def archive(root: Path) -> None:
    """A night over three images: two are enlarged, one cannot be read."""
    (root / "archive/deep").mkdir(parents=True)
    Image.fromarray(picture(20, 26, 31)).save(root / "archive/a.png")
    Image.fromarray(picture(24, 18, 32)).save(root / "archive/deep/b.png")
    (root / "archive/broken.png").write_bytes((root / "archive/a.png").read_bytes()[:200])
    for path in (root / "archive").rglob("*.png"):
        aged(path)
    until = datetime.now() + timedelta(hours=3)
    places = (
        "--archive",
        root / "archive",
        "--output",
        root / "out",
        "--ledger",
        root / "ledger.db",
    )
    tierscale("nightly", *places, "--until", f"{until:%H:%M}", *OPTIONS, code=1)
    with contextlib.closing(sqlite3.connect(root / "ledger.db")) as ledger:
        # The night is put into the past, so that it is an earlier one whenever a test carries on.
        ledger.execute(
            "UPDATE sources SET night = ?, counted = iif(counted IS NULL, NULL, ?), noted = ?",
            (NIGHT, NIGHT, CHANGED + 86400),
        )
        ledger.commit()
        ledger.execute("PRAGMA journal_mode = DELETE")
        print(ledger.execute("SELECT source, state, attempts, error FROM sources").fetchall())
    shutil.rmtree(root / "ledger.db.reports")
    for name in ("preview.png", "routing.png"):  # large, and nobody reads them again
        for path in (root / "out").rglob(name):
            path.unlink()


def main(target: str) -> None:
    """Make everything and pack it."""
    # Always the same place, so that what was absolute in it can be found again: README.md names it.
    root = Path(tempfile.gettempdir()) / "tierscale-0.1"
    root.mkdir()
    try:
        single(root / "single")
        archive(root / "nightly")
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
    main(sys.argv[1])
