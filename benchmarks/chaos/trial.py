"""One disturbed run, and what must hold after it."""

import contextlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
import zarr
from PIL import Image

from benchmarks.chaos.disk import Disk
from benchmarks.chaos.driver import Driver, Ended, waited
from benchmarks.chaos.stage import Stage

OPTIONS = (
    "--tiers",
    "bicubic,fsrcnn-x4",
    "--policy",
    "budget",
    "--budget",
    "0.5",
    "--tile",
    "16",
    "--device",
    "cpu",
)
SIDE = 288
# Shards of the full resolution, and how many of them are waited for at most before a blow falls.
SHARDS, LATEST = 9, 5


class Missed(Exception):
    """The run ended before the blow fell."""


@dataclass
class Trial:
    """One run on the stage.

    names: what was done to it. options: of its command. levels: what they give, where they are not
    the usual ones. ended: how its commands ended. others: outputs that the same command made of the
    same picture.
    """

    stage: Stage
    chance: random.Random
    source: Path
    output: Path
    names: list[str] = field(default_factory=list)
    options: tuple[str, ...] = OPTIONS
    levels: Sequence[np.ndarray] | None = None
    ended: list[Ended] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    props: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def folder(self) -> Path:
        return Path(f"{self.output}.tierscale")

    @property
    def command(self) -> tuple[object, ...]:
        return ("upscale", self.source, self.output, *self.options, "--json")

    def moved(self, size: int) -> Disk:
        """Let the output lie on a disk of its own, of so many bytes."""
        disk = self.props.enter_context(Disk(self.output.parent / "disk", size, self.stage.mounts))
        self.output = disk.path / self.output.name
        return disk

    def receipts(self) -> int:
        return len(list(self.folder.glob("receipts/0/*.json")))

    def renewed(self) -> float:
        """When the lease was renewed, by its owner's clock in seconds since the epoch.

        Now, where there is no lease.
        """
        try:
            return float(json.loads((self.folder / "lease.json").read_text())["renewed"])
        except (FileNotFoundError, ValueError):  # it has ended, or is writing it
            return time.time()

    def begin(self) -> None:
        """Start the run, and wait until it has written a shard or more."""
        driver, wanted = self.stage.driver(), self.chance.randint(1, LATEST)
        driver.begin(*self.command)
        self.await_receipts(wanted)

    def await_receipts(self, count: int) -> None:
        driver = self.stage.driver()
        waited(lambda: min(self.receipts(), SHARDS - 1) >= count or not driver.busy(), 240)
        if not driver.busy():
            self.expect(driver.end(), 0)
            raise Missed

    def expect(self, ended: Ended, code: int, words: str = "") -> None:
        """Note how a command ended, and see that it told the truth."""
        self.ended.append(ended)
        assert ended.code == code, f"exit code {ended.code}, not {code}: {ended.err[-600:]}"
        assert words in ended.err, f"{words!r} is not in {ended.err[-600:]!r}"
        if code > 0:
            said = [line for line in ended.err.splitlines() if line.startswith("tierscale: ")]
            assert len(said) == 1 and self.output.name in said[0], (
                f"no single sentence that names the output: {ended.err[-600:]!r}"
            )

    def end(self, code: int = 0, words: str = "") -> None:
        """Wait for the run, and see that it ended so."""
        assert self.stage.resident is not None
        self.expect(self.stage.resident.end(), code, words)

    def again(self) -> None:
        """The same command goes on, and does nothing again that has its receipt."""
        before = len(list(self.folder.glob("receipts/*/*.json")))
        driver = self.stage.driver()
        driver.begin(*self.command)
        self.end()
        shards = self.shards()
        assert shards["done_before"] >= before, f"{before} shards had receipts: {shards}"

    def shards(self) -> dict[str, int]:
        """What the last command says of its shards."""
        counted: dict[str, int] = json.loads(self.ended[-1].out)["shards"]
        return counted

    def sound(self) -> int:
        """Shards that have a whole receipt, and a file that is as long as it says."""
        lengths = {}
        for file in self.folder.glob("receipts/*/*.json"):
            with contextlib.suppress(ValueError):  # a receipt that was cut
                level, (y, x) = file.parent.name, file.stem.split(".")
                lengths[f"{level}/c/0/{y}/{x}"] = json.loads(file.read_text())["bytes"]
        files = {name: self.output / name for name in lengths}
        return sum(
            file.is_file() and file.stat().st_size == lengths[name] for name, file in files.items()
        )

    def verify(self, *more: str, output: Path | None = None) -> Ended:
        driver = self.stage.driver()
        driver.begin("verify", output or self.output, *more)
        return driver.end()

    def check(self, levels: Sequence[np.ndarray]) -> None:
        """What must hold after every run. levels: of an undisturbed one with the usual options."""
        for output in (self.output, *self.others):
            self._check_output(output, self.levels or levels)
        assert not (orphans := self.stage.orphans()), f"processes left: {orphans}"

    def _check_output(self, output: Path, levels: Sequence[np.ndarray]) -> None:
        verified, folder = self.verify(output=output), Path(f"{output}.tierscale")
        assert verified.code == 0, f"verify finds damage: {verified.err[-300:]}"
        for level, wanted in enumerate(levels):
            pixels = zarr.open_array(f"{output}/{level}", mode="r")[:]
            assert np.array_equal(pixels, wanted), (
                f"level {level} differs in {int((pixels != wanted).sum())} values"
            )
            shards = {f"{path.parent.name}.{path.name}" for path in output.glob(f"{level}/c/0/*/*")}
            receipts = {path.stem for path in folder.glob(f"receipts/{level}/*.json")}
            assert shards == receipts, (
                f"level {level}: without receipt {shards - receipts}, without shard"
                f" {receipts - shards}"
            )
        files = (*folder.rglob("*"), *output.rglob("*"))
        left = [
            path.name for path in files if path.name.startswith("lease.") or path.suffix == ".tmp"
        ]
        assert not left, f"left behind: {left}"


def undisturbed(on: Stage, folder: Path) -> list[np.ndarray]:
    """The sources, and all levels of a run that nobody disturbs, without Ray."""
    stars = skimage.data.hubble_deep_field()[100 : 100 + SIDE, 200 : 200 + SIDE]
    Image.fromarray(stars).save(folder / "stars.png")
    tifffile.imwrite(
        folder / "stars.tif", stars, tile=(64, 64), photometric="rgb", compression="zlib"
    )
    return alone(on, folder / "stars.png", folder / "whole.zarr", OPTIONS)


def alone(on: Stage, source: Path, output: Path, options: Sequence[str]) -> list[np.ndarray]:
    """All levels of a run that nobody disturbs, without Ray."""
    with contextlib.closing(Driver(on.context)) as driver:
        driver.begin("upscale", source, output, *options, "--ray", "none")
        assert (ended := driver.end()).code == 0, ended.err
    return [zarr.open_array(f"{output}/{level}", mode="r")[:] for level in (0, 1)]
