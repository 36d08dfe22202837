"""The folder beside an output: plan, receipts, tables, and the lease of the run that is at work.

Files here are written under a temporary name and renamed, so a reader sees all of a file or none of it.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.errors import Damaged, Held, Refused
from pipeline.places import ObjectPath, Place
from pipeline.plan import Plan
from pipeline.store import sibling, storage_failure

log = logging.getLogger(__name__)

Key = tuple[int, int, int]
# What file systems say that know no hard links.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
# Objects that are read at a time.
AT_ONCE = 16
# A lease that was not renewed for this many seconds is taken over.
LEASE_SECONDS = 120.0


def write_json(path: Place, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_bytes(path, json.dumps(content, indent=1).encode())


def write_bytes(path: Place, content: bytes) -> None:
    """Write a file whole or not at all."""
    if isinstance(path, ObjectPath):
        try:
            path.write_bytes(content)
        except OSError as error:
            raise storage_failure(str(path), error) from error
        return
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_failure(str(path), error) from error


def pixels_sha256(pixels: np.ndarray) -> str:
    """Checksum of pixels (c, H, W): C order, little endian; hex."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record that one shard of one plan is written.

    level, y, x: which shard. shape: (c, H, W) of its pixels, clipped to the image. tiles: tiles of each tier. cost: multiply-adds
    spent. seconds: of computing and writing. batch: smallest batch used, 0 where not even one window fitted and it was cut.
    retreats: tiers whose batches were smaller than planned because memory ran out; their values may differ from an undisturbed run's by 1
    of 255. tile_costs: (row, column, multiply-adds, milliseconds).
    """

    plan: str
    level: int
    y: int
    x: int
    shape: tuple[int, int, int]
    pixels_sha256: str
    bytes: int
    tiles: Mapping[str, int]
    cost: float
    seconds: Mapping[str, float]
    device: str
    batch: int
    retreats: tuple[str, ...] = ()
    tile_costs: tuple[tuple[int, int, float, float], ...] = ()

    @property
    def key(self) -> Key:
        return self.level, self.y, self.x


class Folder:
    """The folder beside the output at `path`."""

    def __init__(self, path: str) -> None:
        self.output = path
        self.path = sibling(path)

    def exists(self) -> bool:
        return (self.path / "plan.json").exists()

    def write_plan(self, plan: Plan) -> None:
        write_json(self.path / "plan.json", plan.to_json())

    def plan(self) -> Plan:
        """The stored plan. Refused: there is none, or it was changed."""
        try:
            return Plan.from_json(json.loads((self.path / "plan.json").read_text()))
        except FileNotFoundError:
            raise Refused(f"{self.output} has no plan in {self.path}; it was not made by tierscale, or not here") from None
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"{self.path / 'plan.json'} cannot be used: {error}; give --overwrite to begin anew") from error

    def write(self, receipt: Receipt) -> None:
        """Store a receipt. It goes last: a shard without one is done again, one without its shard would hide a hole."""
        plain = {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}
        write_bytes(self.path / "receipts" / str(receipt.level) / f"{receipt.y}.{receipt.x}.json", json.dumps(plain).encode())

    def receipts(self, plan: str, level: int | None = None) -> Iterator[Receipt]:
        """All receipts of one plan, or those of one level; what cannot be read counts as absent, and its shard is done again."""
        for text in _texts(sorted((self.path / "receipts").glob(f"{'*' if level is None else level}/*.json"))):
            if (receipt := _parsed(text, plan)) is not None:
                yield receipt

    def receipt(self, plan: str, key: Key) -> Receipt:
        """The receipt of one shard. Damaged: there is none that can be used."""
        file = self.path / "receipts" / str(key[0]) / f"{key[1]}.{key[2]}.json"
        with contextlib.suppress(FileNotFoundError):
            if (receipt := _parsed(file.read_text(), plan)) is not None:
                return receipt
        raise Damaged(f"{self.output} level {key[0]} shard {key[1]}.{key[2]} has no receipt any more; run the upscale command again")

    def read_json(self, name: str) -> Any:
        """Content of a file here, or None."""
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _parsed(text: str, plan: str) -> Receipt | None:
    """A receipt of a plan; None: it is of another one, or torn."""
    try:
        plain = json.loads(text)
        plain |= {"shape": tuple(plain["shape"]), "retreats": tuple(plain.get("retreats", ()))}
        receipt = Receipt(**{**plain, "tile_costs": tuple(tuple(entry) for entry in plain["tile_costs"])})
    except (ValueError, KeyError, TypeError):
        return None
    return receipt if receipt.plan == plan else None


def _texts(files: list[Any]) -> Iterator[str]:
    """Contents of files, in order; of objects, many are asked for at a time, because each takes its way."""
    if files and isinstance(files[0], ObjectPath):
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="receipts") as readers:
            yield from readers.map(ObjectPath.read_text, files)
    else:
        yield from (file.read_text() for file in files)


class Lease:
    """The right to write one output; a context in which a thread renews it.

    It keeps two runs from doing the same work. Should two hold it after all, nothing is harmed: shards are pure and written whole.
    clock: seconds since the epoch, handed in so that tests can jump.
    """

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.time) -> None:
        self.file = folder.path / "lease.json"
        self.clock = clock
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": clock(), "token": uuid.uuid4().hex}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        try:
            self._take()
        except OSError as error:
            raise storage_failure(str(self.file), error) from error
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        # Where nothing can be written any more, the lease stays, and is known as that of a dead process.
        with contextlib.suppress(OSError):
            if (self._held() or {}).get("token") == self.owner["token"]:
                self.file.unlink(missing_ok=True)
            self.file.parent.rmdir()  # a run that failed before it had a plan leaves no folder behind

    def _take(self) -> None:
        """Put our lease in the place of none or of a dead one."""
        if isinstance(self.file, ObjectPath):
            self._take_object(self.file)
            return
        mine = self.file.with_name(f"lease.{self.owner['token']}.tmp")
        write_json(mine, {**self.owner, "renewed": self.clock()})
        try:
            for _ in range(2):
                if _placed(mine, self.file):
                    return
                self._refuse_living(self._held())
                self._clear()
        finally:
            mine.unlink(missing_ok=True)
        raise Held(f"another run took {self.file} at this moment; wait for it to end")

    def _take_object(self, file: ObjectPath) -> None:
        """The same in an object store, which puts an object only where there is none, or in the place of a known one."""
        mine = json.dumps({**self.owner, "renewed": self.clock()}).encode()
        for _ in range(2):
            if file.create(mine):
                return
            with contextlib.suppress(FileNotFoundError):
                etag = file.head().etag
                self._refuse_living(self._held())
                if file.exchange(mine, etag):
                    return
        raise Held(f"another run took {file} at this moment; wait for it to end")

    def _clear(self) -> None:
        """Take a dead lease away; one that another run put in its place meanwhile is put back."""
        aside = self.file.with_name(f"lease.{self.owner['token']}.dead")
        try:
            self.file.rename(aside)
        except FileNotFoundError:
            return
        if living(_lease_in(aside), self.clock()):
            _placed(aside, self.file)
        aside.unlink(missing_ok=True)

    def _held(self) -> dict[str, Any] | None:
        return _lease_in(self.file)

    def _refuse_living(self, held: dict[str, Any] | None) -> None:
        if held is not None and living(held, self.clock()):
            age = self.clock() - held["renewed"]
            raise Held(
                f"process {held['pid']} on {held['host']} is writing {self.file.parent} (last sign {max(age, 0):.0f} s ago); "
                "wait for it to end, or stop it"
            )

    def _keep(self) -> None:
        """Renew until the context ends, or until another run has taken over."""
        while not self._over.wait(LEASE_SECONDS / 6):
            try:
                if (self._held() or {}).get("token") != self.owner["token"]:
                    return
                write_json(self.file, {**self.owner, "renewed": self.clock()})
            except (OSError, Damaged, Refused) as error:
                log.warning("the lease could not be renewed: %s", error)


def _lease_in(file: Place) -> dict[str, Any] | None:
    """Whose lease a file is; None where there is none or a crash tore it."""
    try:
        held = json.loads(file.read_text())
        return held if {"host", "pid", "renewed"} <= set(held) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _placed(mine: Path, place: Path) -> bool:
    """Give a whole file a second name, in one step; False: the name is taken."""
    try:
        os.link(mine, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # File systems without hard links, such as exFAT: the name is taken first, and holds nothing for a moment.
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        shutil.copyfile(mine, place)
    return True


def living(held: Mapping[str, Any] | None, now: float) -> bool:
    """Whether the owner of a lease is still at work at `now`, seconds since the epoch."""
    if held is None or (held["host"] == socket.gethostname() and not _alive(held["pid"])):
        return False
    return now - held["renewed"] < LEASE_SECONDS


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
