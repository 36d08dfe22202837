"""`python -m benchmarks.chaos`: run all disturbances and record the report."""

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import chaos
from benchmarks.chaos.disk import mountable
from benchmarks.chaos.disturbances import KERNEL, KINDS, damage
from benchmarks.chaos.stage import Stage, stage
from benchmarks.chaos.trial import Missed, Trial, undisturbed
from benchmarks.results import record

# A disturbance that comes too late, because the run has ended, is tried again.
ATTEMPTS = 3
# One in so many runs is damaged after its end.
DAMAGED = 5


def play(
    on: Stage, folder: Path, levels: list[np.ndarray], kind: str, chance: random.Random
) -> tuple[list[str], str | None]:
    """One run: what was done to it, and what is wrong with its end, or None.

    Missed: the run ended before it was disturbed.
    """
    source = folder / chance.choice(["stars.png", "stars.tif"])
    with tempfile.TemporaryDirectory(dir=folder) as own, contextlib.ExitStack() as props:
        trial = Trial(on, chance, source, Path(own) / "out.zarr", [kind], props=props)
        try:
            KINDS[kind](trial)
            if kind != "damage" and chance.randrange(DAMAGED) == 0:
                trial.names.append("damage")
                damage(trial)
            trial.check(levels)
        except Missed:
            raise
        except Exception as error:  # the other runs are played all the same
            on.shutdown()
            return trial.names, f"{type(error).__name__}: {error}"
        return trial.names, None


def deal(runs: int, seed: int, only: str | None) -> list[str]:
    """The kind of each run: all of them in turn, in a new order each time."""
    chance, kinds = random.Random(seed), [kind for kind in KINDS if only in (None, kind)]
    return [
        kind for _ in range(-(-runs // len(kinds))) for kind in chance.sample(kinds, len(kinds))
    ][:runs]


class Row(NamedTuple):
    """One run: what was done to it, what is wrong with its end (None: nothing), and its seconds."""

    names: list[str]
    wrong: str | None
    seconds: float


def one(on: Stage, folder: Path, levels: list[np.ndarray], kind: str, seed: str) -> Row:
    """One run, tried again when its disturbance came too late."""
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        with contextlib.suppress(Missed):
            names, wrong = play(on, folder, levels, kind, random.Random(f"{seed} {attempt}"))
            return Row(names, wrong, time.monotonic() - began)
    missed = f"the run ended before it was disturbed, {ATTEMPTS} times"
    return Row([kind], missed, time.monotonic() - began)


def by_kind(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Print and return how many runs of each kind there were, and how many failed."""
    print(f"\n{'what was done':<15} runs  failed  median s")
    table = {}
    for kind in (*KINDS, KERNEL):
        mine = [row for row in rows if kind in row.names]
        if not mine:
            continue
        failed = sum(row.wrong is not None for row in mine)
        table[kind] = {"runs": len(mine), "failed": failed}
        median = np.median([row.seconds for row in mine])
        print(f"{kind:<15} {len(mine):>4}  {failed:>6}  {median:>8.0f}")
    return table


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    options = argparse.ArgumentParser(
        prog="make chaos", description=(chaos.__doc__ or "").split("\n")[0]
    )
    options.add_argument("--runs", type=int, default=100)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--kind", choices=KINDS, help="this kind of fault only")
    options.add_argument(
        "--inject",
        action="store_true",
        help="inject the faults of disks, as is done where no tmpfs may be mounted",
    )
    return options


def main(arguments: list[str] | None = None) -> int:
    """Carry out the runs and record the report; 1 if one of them went wrong."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    rows: list[Row] = []
    mounts = not options.inject and mountable()
    with (
        tempfile.TemporaryDirectory(prefix="tierscale-chaos-") as folder,
        stage(mounts, Path(folder) / "sick") as on,
    ):
        levels = undisturbed(on, Path(folder))
        for number, kind in enumerate(deal(options.runs, options.seed, options.kind)):
            rows.append(one(on, Path(folder), levels, kind, f"{options.seed} {number}"))
            row = rows[-1]
            done = f"{number + 1:>4}  {row.seconds:>5.0f} s  {' + '.join(row.names):<40}"
            print(f"{done} {row.wrong or 'ok'}", flush=True)
    table, failed = by_kind(rows), sum(row.wrong is not None for row in rows)
    if options.kind is None:
        figures = {
            "runs": len(rows),
            "seed": options.seed,
            "failed": failed,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "disks": "mounted" if mounts else "injected",
            "kinds": table,
        }
        record("chaos", "make chaos", figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
