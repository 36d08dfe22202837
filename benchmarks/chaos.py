"""Break what can break, and see that nothing is lost: `make chaos`.

Runs on one small photograph, each disturbed in one or more ways that a seed chooses. After each:
the array is that of an undisturbed run, byte for byte; every shard has its receipt and every
receipt its shard; exit codes said the truth; no process and no lock is left.
"""

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from benchmarks.results import record
from benchmarks.stage import Driver, Stage, ballast, mountable, stage, waited
from benchmarks.trial import SHARDS, Missed, Trial, undisturbed

DAY = 86400.0
DISK_BYTES = 64 << 20
# Bytes that may be taken before a node ends a worker.
MEMORY_ROOM = 2 << 30
# What a memory kill is called where Ray's monitor ended nobody, and a worker was killed in its
# stead.
KERNEL = "memory, by hand"
# A blow that comes too late, because the run has ended, is dealt again.
DEALS = 3
# Every which run that has a blow has a second one, and every which run is damaged at its end.
SECOND, DAMAGED = 3, 5


def kill_actor(trial: Trial) -> None:
    """SIGKILL an actor."""
    trial.chance.choice(trial.stage.workers()).kill()


def kill_raylet(trial: Trial) -> None:
    """SIGKILL the raylet of a node; another node comes."""
    trial.stage.replace_node(trial.chance.randrange(2))


GENTLE = {"actor": kill_actor, "raylet": kill_raylet}


def sometimes(trial: Trial) -> None:
    """Now and then, a blow that the run gets over by itself before the one that it is about."""
    if trial.chance.randrange(SECOND) == 0:
        trial.names.append(trial.chance.choice(list(GENTLE)))
        GENTLE[trial.names[-1]](trial)
        trial.await_receipts(min(SHARDS - 1, trial.receipts() + 1))


def overcome(trial: Trial) -> None:
    """A blow that the run gets over by itself."""
    trial.begin()
    sometimes(trial)
    GENTLE[trial.names[0]](trial)
    trial.end()


def memory(trial: Trial) -> None:
    """Take memory until Ray's monitor ends a worker; where it does not, do as the kernel would."""
    trial.stage.replace_node(1, MEMORY_ROOM)
    trial.stage.dismiss()  # the next driver's workers come up on all nodes before it begins
    try:
        trial.begin()
        before = set(trial.stage.workers())
        ballast(lambda: not before <= set(trial.stage.workers()))
        if before <= set(trial.stage.workers()):
            trial.names[0] = KERNEL
            kill_actor(trial)
        trial.end()
    finally:
        trial.stage.replace_node(1)


def straggler(trial: Trial) -> None:
    """SIGSTOP a worker: its call is begun elsewhere too. It wakes after the run, and what it then
    writes does no harm.
    """
    trial.begin()
    victim = trial.stage.workers()[0]
    victim.suspend()
    try:
        trial.end()
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.resume()
    if "elsewhere" not in trial.ended[-1].err:
        raise Missed
    waited(
        lambda: (
            victim not in trial.stage.workers()
            or not victim.cmdline()[0].startswith("ray::Worker.")
        ),
        30,
    )


def driver(trial: Trial) -> None:
    """SIGKILL the driver; another one goes on."""
    trial.begin()
    sometimes(trial)
    trial.stage.workers()
    assert trial.stage.resident is not None
    trial.stage.resident.process.kill()
    trial.end(-signal.SIGKILL)
    trial.again()


def everything(trial: Trial) -> None:
    """SIGKILL the driver and all of Ray."""
    trial.begin()
    trial.stage.kill_all()
    trial.again()


def own_ray(trial: Trial) -> None:
    """SIGKILL the raylet of an embedded Ray: the run cannot go on, and says so."""
    alone = Driver(trial.stage.context)
    try:
        alone.begin(*trial.command, "--ray", "local", "--workers", "1")
        waited(lambda: trial.receipts() >= 1 or not alone.busy(), 240)
        raylets = [
            child
            for child in psutil.Process(alone.process.pid).children(recursive=True)
            if child.name() == "raylet"
        ]
        if not alone.busy() or not raylets:
            raise Missed
        raylets[0].kill()
        ended = alone.end()
        trial.ended.append(ended)
        assert ended.code != 0, "a run without its Ray cannot be done"
    finally:
        alone.close()
    trial.again()


def full(trial: Trial) -> None:
    """The disk is full in the middle of the run; there is room again, and the same command
    goes on.
    """
    disk = trial.moved(trial.chance.randint(1500, 2300) << 10)
    trial.stage.driver().begin(*trial.command)
    trial.end(1, "full")
    disk.resize(DISK_BYTES)
    trial.again()


def read_only(trial: Trial) -> None:
    """The target cannot be written any more from the middle of the run on, until it can again."""
    disk = trial.moved(DISK_BYTES)
    trial.begin()
    disk.lock()
    trial.end(1)
    disk.unlock()
    # The first driver could not take its lease away, and lives on the stage: to others it would be
    # alive for two minutes.
    trial.stage.dismiss()
    trial.again()


def two_drivers(trial: Trial) -> None:
    """Two drivers at once: one works, and the other is refused or finds all done."""
    with other(trial) as second:
        trial.stage.driver().begin(*trial.command)
        time.sleep(trial.chance.uniform(0, 2))
        second.begin(*trial.command, "--ray", "none")
        ended = (trial.stage.driver().end(), second.end())
        for one in ended:
            trial.expect(one, one.code, "" if one.code == 0 else "is writing")
        assert sorted(one.code for one in ended) in ([0, 2], [0, 0]), [one.code for one in ended]
        assert all(one.code == 0 for one in ended) <= any(
            '"written": 0' in one.out for one in ended
        ), "two worked at once"


def clock(trial: Trial) -> None:
    """A clock jumps by a day while a run is at work: that of its driver, or that of a second one
    which then wants the same output.

    Who seems to be long dead is taken over: both write, and do no harm. Who seems to live is waited
    for: the second driver is refused.
    """
    own, jump = trial.chance.random() < 0.5, trial.chance.choice([-DAY, DAY])
    with other(trial) as second:
        trial.begin()
        first, workers = trial.stage.driver(), trial.stage.workers()
        for worker in workers:  # so that the run is still at work when its lease has been renewed
            worker.suspend()
        try:
            (first if own else second).jump(jump)
            if own:
                waited(lambda: abs(trial.renewed() - time.time()) > DAY / 2, 30)
            second.begin(*trial.command, "--ray", "none")
            late = second.end()
        finally:
            first.jump(0.0)
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.resume()
        ended = (first.end(), late)
        # Of a driver whose clock runs behind, a second one thinks that it died a day ago.
        alive = jump > 0 if own else jump < 0
        if late.code == 0 and '"written": 0' in late.out:
            raise Missed
        for one in ended:
            words = {0: "", 1: "by another run", 2: "is writing"}
            trial.expect(one, one.code, words.get(one.code, "a truthful exit code"))
        assert ended[0].code != 2 and (late.code == 2) == alive, (
            f"clock {jump:+.0f} s: exit codes {[one.code for one in ended]}"
        )
    trial.again()


def damage(trial: Trial) -> None:
    """Spoil shards that have their receipts: verify finds each, and --heal does it again."""
    if not trial.output.exists():
        trial.again()
    files = sorted(trial.output.glob("*/c/0/*/*"))
    chosen = trial.chance.sample(files, trial.chance.randint(1, 3))
    for file in chosen:
        spoil(
            file, trial.chance.choice(["truncated", "zeroed", "flipped", "removed"]), trial.chance
        )
    names = [f"level {file.parts[-5]} shard {file.parts[-2]}.{file.parts[-1]} " for file in chosen]
    found = trial.verify()
    assert found.code == 1 and all(name in found.err for name in names), (
        f"{names}: {found.err[-600:]}"
    )
    healed = trial.verify("--heal")
    assert healed.code == 0, healed.err[-600:]


def spoil(file: Path, way: str, chance: random.Random) -> None:
    """Damage a shard's file."""
    content = bytearray(file.read_bytes())
    # In the first half, where pixels lie that the image's edge does not cut off.
    at = chance.randrange(64, len(content) // 2)
    if way == "removed":
        file.unlink()
    elif way == "truncated":
        file.write_bytes(content[:at])
    elif way == "zeroed":
        file.write_bytes(bytes(len(content)))
    else:
        content[at] ^= 1 << chance.randrange(8)
        file.write_bytes(content)


def other(trial: Trial) -> contextlib.closing[Driver]:
    """A second driver."""
    return contextlib.closing(Driver(trial.stage.context))


KINDS: dict[str, Callable[[Trial], None]] = {
    **dict.fromkeys(GENTLE, overcome),
    "memory": memory,
    "straggler": straggler,
    "driver": driver,
    "everything": everything,
    "own ray": own_ray,
    "full disk": full,
    "read-only": read_only,
    "two drivers": two_drivers,
    "clock": clock,
    "damage": damage,
}


def play(
    on: Stage, folder: Path, levels: list[np.ndarray], kind: str, chance: random.Random
) -> tuple[list[str], str | None]:
    """One run: what was done to it, and what is wrong with its end, or None. Missed: no blow
    fell.
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


def main(arguments: list[str] | None = None) -> int:
    """Play the runs and record the report; 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kind", choices=KINDS, help="this kind of fault only")
    parser.add_argument(
        "--inject",
        action="store_true",
        help="inject the faults of disks, as is done where no tmpfs may be mounted",
    )
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    rows: list[tuple[list[str], str | None, float]] = []
    mounts = not given.inject and mountable()
    with tempfile.TemporaryDirectory(prefix="tierscale-chaos-") as folder, stage(mounts) as on:
        levels = undisturbed(on, Path(folder))
        for number, kind in enumerate(deal(given.runs, given.seed, given.kind)):
            started = time.monotonic()
            for attempt in range(DEALS):
                try:
                    names, wrong = play(
                        on,
                        Path(folder),
                        levels,
                        kind,
                        random.Random(f"{given.seed} {number} {attempt}"),
                    )
                    break
                except Missed:
                    names, wrong = [kind], f"no blow fell in time in {DEALS} runs"
            rows.append((names, wrong, time.monotonic() - started))
            print(
                f"{number + 1:>4}  {rows[-1][2]:>5.0f} s  {' + '.join(names):<40} {wrong or 'ok'}",
                flush=True,
            )
    failed = sum(wrong is not None for _, wrong, _ in rows)
    print(f"\n{'what was done':<15} runs  failed  median s")
    table = {}
    for kind in (*KINDS, KERNEL):
        mine = [(wrong, seconds) for names, wrong, seconds in rows if kind in names]
        if mine:
            table[kind] = {"runs": len(mine), "failed": sum(wrong is not None for wrong, _ in mine)}
            print(
                f"{kind:<15} {len(mine):>4}  {table[kind]['failed']:>6} "
                f" {np.median([seconds for _, seconds in mine]):>8.0f}"
            )
    if given.kind is None:
        minutes = round((time.monotonic() - began) / 60, 1)
        disks = "mounted" if mounts else "injected"
        told = {
            "runs": len(rows),
            "seed": given.seed,
            "failed": failed,
            "minutes": minutes,
            "disks": disks,
            "kinds": table,
        }
        record("chaos", "make chaos", told)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
