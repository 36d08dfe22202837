"""The ways in which a run is disturbed, and what each of them must lead to."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.chaos.disk import ballast
from benchmarks.chaos.driver import Driver, waited
from benchmarks.chaos.later import other
from benchmarks.chaos.nights import archive_gone, outputs_unmounted
from benchmarks.chaos.trial import OPTIONS, SHARDS, Missed, Trial, alone
from tierscale.models.contract.checkpoints import read_checkpoint, write_checkpoint
from tierscale.models.weights import locate
from tierscale.pipeline.plan.plan import BYTES_VERSION

DAY = 86400.0
DISK_BYTES = 64 << 20
# Bytes that may be taken before a node ends a worker.
MEMORY_ROOM = 2 << 30
# What a memory kill is called where Ray's monitor ended nobody, and a worker was killed in its
# stead.
KERNEL = "memory, by hand"
# One in so many runs is disturbed a second time.
SECOND = 3
# What was written this long before the power failed may be lost.
LAST_SECONDS = 3.0


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
    """SIGSTOP a worker: its call is started elsewhere too.

    It wakes after the run, and what it then writes does no harm.
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


def upgrade(trial: Trial) -> None:
    """The driver is killed, and a later version goes on: other defaults, newer weights and bytes.

    It is given the options as before, or those alone that say where it runs.
    """
    trial.begin()
    sometimes(trial)
    assert trial.stage.resident is not None
    trial.stage.resident.process.kill()
    trial.end(-signal.SIGKILL)
    options, before = trial.chance.choice([trial.options, ("--device", "cpu")]), trial.receipts()
    zoo = trial.output.parent / "zoo"
    with contextlib.closing(Driver(trial.stage.context, later=zoo)) as later:
        line = ("upscale", trial.source, trial.output, *options, "--ray", "none", "--json")
        later.begin(*line)
        trial.expect(later.end(), 0)
        said = json.loads(trial.ended[-1].out)
        assert said["shards"]["done_before"] >= before, said["shards"]
        if said["shards"]["written"] == 0:
            raise Missed  # workers of the killed driver ended the last shards
        goes_on = f"bytes_version {BYTES_VERSION} and goes on with {BYTES_VERSION + 1}"
        assert any(goes_on in note for note in said["notes"]), said
        later.begin(*line)
        trial.expect(later.end(), 0)
        assert json.loads(trial.ended[-1].out)["shards"]["written"] == 0, "skipped by the later one"
    files = trial.folder.glob("receipts/*/*.json")
    versions = [json.loads(file.read_text())["bytes_version"] for file in files]
    # A worker of the killed driver may end its shard late, with the same bytes and its own receipt.
    assert 0 < versions.count(BYTES_VERSION + 1) <= said["shards"]["written"], versions
    assert {*versions} == {BYTES_VERSION, BYTES_VERSION + 1}, versions
    trial.again()


def replaced_weights(trial: Trial) -> None:
    """The file of a tier is replaced during the run, and a worker dies, so that another loads it.

    The run ends with the pixels of its plan, or says that its weights are gone. With the earlier
    file back it goes on.
    """
    path = trial.output.parent / "mine.safetensors"
    content = locate("fsrcnn-x4").read_bytes()
    path.write_bytes(content)
    trial.options = ("--tiers", f"bicubic,file:{path}", *OPTIONS[2:])
    whole = trial.output.with_name("whole.zarr")
    trial.levels = alone(trial.stage, trial.source, whole, trial.options)
    trial.begin()
    write_checkpoint(path, other(read_checkpoint(path)))
    kill_actor(trial)
    ended = trial.stage.driver().end()
    words = {0: "", 1: "put the earlier one back"}
    trial.expect(ended, ended.code, words.get(ended.code, "a truthful exit code"))
    trial.stage.driver().begin(*trial.command)
    trial.end(2, "another plan")
    path.write_bytes(content)
    trial.again()


def power(trial: Trial) -> None:
    """The power fails: all processes are gone, and so is what the disk took in the last seconds.

    Of shards and receipts that were written just now, some are empty, some cut, some gone, whatever
    their writers were told, and so may be what is not worth waiting for the disk. The same command
    makes them again.
    """
    trial.begin()
    sometimes(trial)
    trial.stage.kill_all()
    files = [*trial.output.glob("*/c/0/*/*"), *trial.folder.glob("receipts/*/*.json")]
    files += [*trial.folder.glob("lease.json"), *trial.folder.glob("checked.json")]
    newest = max(file.stat().st_mtime for file in files)
    last = [file for file in files if newest - file.stat().st_mtime < LAST_SECONDS]
    for file in trial.chance.sample(last, trial.chance.randint(1, len(last))):
        lose(file, trial.chance.choice(["empty", "cut", "gone"]), trial.chance)
    sound = trial.sound()
    driver = trial.stage.driver()
    driver.begin(*trial.command)
    trial.end()
    shards = trial.shards()
    assert shards["done_before"] == sound, f"{sound} shards were sound: {shards}"


def lose(file: Path, way: str, chance: random.Random) -> None:
    """Take from a file what a power failure may."""
    if way == "gone":
        file.unlink()
    else:
        os.truncate(file, 0 if way == "empty" else chance.randrange(file.stat().st_size))


def sick(trial: Trial) -> None:
    """The card of a worker goes sick: others outvote it, it is ended, and the run is done."""
    trial.begin()
    trial.stage.sick.write_text(str(trial.chance.choice(trial.stage.workers()).pid))
    try:
        trial.end()
    finally:
        trial.stage.sick.write_text("")
    # The pool goes on without a worker that was ended.
    trial.stage.dismiss()
    if "was ended" not in trial.ended[-1].out:
        raise Missed


def own_ray(trial: Trial) -> None:
    """SIGKILL the raylet of an embedded Ray: the run says that it failed, or is really done.

    Its workers notice after a while, and may end what they hold before.
    """
    wanted = trial.chance.randint(0, 1)
    alone = Driver(trial.stage.context)
    try:
        alone.begin(*trial.command, "--ray", "local", "--workers", "1")
        begun = trial.folder / "plan.json"
        waited(lambda: (begun.exists() and trial.receipts() >= wanted) or not alone.busy(), 240)
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
        if ended.code == 0:
            assert trial.verify().code == 0, "a run that lost its Ray says that it is done"
    finally:
        alone.close()
    trial.again()


def full(trial: Trial) -> None:
    """The disk becomes full during the run; with room again, the same command resumes."""
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
    with second_driver(trial) as second:
        trial.stage.driver().begin(*trial.command)
        time.sleep(trial.chance.uniform(0, 2))
        second.begin(*trial.command, "--ray", "none")
        ended = (trial.stage.driver().end(), second.end())
        # The other may begin while this one looks at what is there.
        refusals = ("is writing", "anew while this one started")
        for one in ended:
            said = [words for words in refusals if words in one.err]
            trial.expect(one, one.code, "" if one.code == 0 else (*said, *refusals)[0])
        assert sorted(one.code for one in ended) in ([0, 2], [0, 0]), [one.code for one in ended]
        assert all(one.code == 0 for one in ended) <= any(
            '"written": 0' in one.out for one in ended
        ), "two worked at once"


def clock(trial: Trial) -> None:
    """The clock of a driver jumps by a day, or that of a second one that wants the same output.

    A driver that seems long dead is taken over: both write, and do no harm. One that seems alive is
    respected: the second driver is refused.
    """
    own, jump = trial.chance.random() < 0.5, trial.chance.choice([-DAY, DAY])
    with second_driver(trial) as second:
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
    damaged = trial.verify()
    assert damaged.code == 1 and all(name in damaged.err for name in names), (
        f"{names}: {damaged.err[-600:]}"
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


def second_driver(trial: Trial) -> contextlib.closing[Driver]:
    """A second driver."""
    return contextlib.closing(Driver(trial.stage.context))


KINDS: dict[str, Callable[[Trial], None]] = {
    **dict.fromkeys(GENTLE, overcome),
    "memory": memory,
    "straggler": straggler,
    "driver": driver,
    "everything": everything,
    "upgrade": upgrade,
    "replaced weights": replaced_weights,
    "power": power,
    "sick card": sick,
    "own ray": own_ray,
    "full disk": full,
    "read-only": read_only,
    "two drivers": two_drivers,
    "clock": clock,
    "damage": damage,
    "archive gone": archive_gone,
    "outputs unmounted": outputs_unmounted,
}
