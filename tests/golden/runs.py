"""Golden runs: small commands, and the pixels that they must give again whatever is rebuilt inside.

    python -m tests.golden.runs [NAME ...]            compares with checksums.json
    python -m tests.golden.runs --record [NAME ...]   writes checksums.json

A comparison ends with exit code 1 when anything differs. A record holds a SHA-256 for each array
and a coarse signature. The SHA-256 is promised where `environment()` is that of the record;
elsewhere convolutions round otherwise, a value may differ by 1, and the signature is compared
within a tolerance.

Of the code under test nothing is imported but what `entry_points()` lists; results are read with
zarr, pyarrow, tifffile and json.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import tifffile
import torch
import zarr
from PIL import Image

from tests.golden import inputs

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("checksums.json")
# Another processor may give values that differ by 1 of 255, which moves the mean of a block by far
# less than this share of the range.
TOLERANCE = 0.001
NUMBERS = 64
# What is on record, whatever the processor has.
FLOAT32 = ("--precision", "fp32")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
LIBRARIES = ("torch", "zarr", "numpy", "pillow", "imagecodecs")

Found = dict[str, Any]


def entry_points() -> dict[str, Callable[..., Any]]:
    """All that is called of the code under test: two commands, and the function for arrays."""
    from tierscale.jobs.cli.main import main as tierscale
    from tierscale.jobs.upscale_dataset import main as dataset
    from tierscale.pipeline.run.array import upscale_array

    return {"tierscale": tierscale, "dataset": dataset, "upscale_array": upscale_array}


def environment() -> dict[str, Any]:
    """What decides over the last bit of a result: libraries, and kernels for the processor."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    cpu = dict(line.split(":", 1) for line in text.replace("\t", "").splitlines() if ":" in line)
    have = cpu.get("flags", "").split()
    return {
        **{name: version(name) for name in LIBRARIES},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_vendor": cpu.get("vendor_id", "unknown").strip(),
        "cpu_flags": [flag for flag in FLAGS if flag in have],
    }


# commands


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(name: str, *arguments: str | Path) -> Ended:
    """Run a command in this process."""
    command_line = [str(argument) for argument in arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    threads = torch.get_num_threads()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            entry_points()[name](command_line)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            torch.set_num_threads(threads)
    return Ended(code, out.getvalue(), err.getvalue())


def call_apart(name: str, *arguments: str | Path) -> Ended:
    """Run a command in a process of its own, because Ray leaves threads and handlers behind."""
    command = [sys.executable, "-m", "tests.golden.runs", "--call", name, *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    return Ended(done.returncode, done.stdout, done.stderr)


def good(ended: Ended) -> Found:
    """The JSON object of a command that must have ended well."""
    if ended.code:
        raise RuntimeError(f"exit code {ended.code}: {ended.err.strip() or ended.out.strip()}")
    found: Found = json.loads(ended.out)
    if found["status"] != "done":
        raise RuntimeError(f"status {found['status']}: {found}")
    return found


# what is recorded


def measured(output: Path) -> Found:
    """Every level of an output, and how many tiles each tier made."""
    group = zarr.open_group(str(output), mode="r")
    names = sorted((name for name, _ in group.arrays()), key=int)
    table = pq.read_table(Path(f"{output}.tierscale") / "tiles.parquet")
    tiers = Counter(table.column("tier").to_pylist())
    return {
        "tiles": dict(sorted(tiers.items())),
        "arrays": {name: described(level_of(output, name)) for name in names},
    }


def level_of(output: Path, name: str) -> np.ndarray:
    """The pixels of one level of an output."""
    return np.asarray(zarr.open_array(f"{output}/{name}", mode="r")[:])


def described(values: np.ndarray) -> Found:
    """An array in the record: its checksum, and means of blocks as shares of its range."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    return {
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "sha256": hashlib.sha256(little.tobytes()).hexdigest(),
        "missing": int(values.size - known.size),
        "range": [low, high],
        "signature": signature(values, low, high),
    }


def signature(values: np.ndarray, low: float, high: float) -> list[float | None]:
    """Means of at most NUMBERS blocks as shares of a range; None for a block without a value."""
    cube = values.reshape(-1, *values.shape[-2:]) if values.ndim > 1 else values.reshape(1, 1, -1)
    side = max(1, min(8, int((NUMBERS / len(cube)) ** 0.5)))
    means: list[float | None] = []
    for channel in cube[:NUMBERS]:
        for rows in np.array_split(channel, side, axis=0):
            for block in np.array_split(rows, side, axis=1):
                known = block[np.isfinite(block)].astype(np.float64)
                mean = (known.mean() - low) / ((high - low) or 1.0) if known.size else None
                means.append(None if mean is None else round(float(mean), 4))
    return means


# kinds of runs


@dataclass(frozen=True, slots=True)
class Run:
    """One golden run.

    source: makes the input in a folder. options: as one writes them. quick: part of the usual
    tests. carry_out: from the run and an empty folder to what is recorded, by name of output;
    None: `upscaled`.
    """

    name: str
    source: Callable[[Path], Path]
    options: str
    quick: bool = False
    carry_out: Callable[["Run", Path], Found] | None = None

    def __call__(self, folder: Path) -> Found:
        return (self.carry_out or upscaled)(self, folder)


def plain(run: Run) -> list[str]:
    """The options of a run on threads of this process."""
    return [*shlex.split(run.options), *FLOAT32, "--ray", "none", "--workers", "1", "--json"]


def upscaled(run: Run, folder: Path) -> Found:
    """`tierscale upscale` on threads."""
    output = folder / "out.zarr"
    summary = good(call("tierscale", "upscale", run.source(folder), output, *plain(run)))
    found = measured(output)
    # A tier that made no tile may be told with 0 of them.
    if {tier: count for tier, count in summary["tiles"].items() if count} != found["tiles"]:
        raise RuntimeError(
            f"the summary tells of tiles {summary['tiles']} and tiles.parquet of {found['tiles']}",
        )
    return {"out.zarr": found}


def on_ray(run: Run, folder: Path) -> Found:
    """`tierscale upscale` on a Ray of its own, with two workers."""
    output = folder / "out.zarr"
    ray = ["--ray", "local", "--workers", "2", "--json"]
    options = [*shlex.split(run.options), *FLOAT32, *ray]
    good(call_apart("tierscale", "upscale", run.source(folder), output, *options))
    return {"out.zarr": measured(output)}


def manifest(run: Run, folder: Path) -> Found:
    """A manifest of three rows, with options of their own in two."""
    root = run.source(folder)
    rows = [
        {"source": str(root / "a.png")},
        {"source": str(root / "b.tif"), "scale": "2", "tiers": "bicubic,fsrcnn-x2"},
        {"source": str(root / "deep/c.npy"), "policy": "full"},
    ]
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = good(
        call(
            "dataset",
            "--manifest",
            root / "m.jsonl",
            "--output-root",
            folder / "out",
            *plain(run),
        )
    )
    if summary["done"] != 3 or pq.read_table(folder / "out/results.parquet").num_rows != 3:
        raise RuntimeError(f"not all rows are done: {summary}")
    return several(folder / "out", "a.png", "b.tif", "deep/c.npy")


def nightly(run: Run, folder: Path) -> Found:
    """A night over an archive of three images, with hours left."""
    root, later = run.source(folder), datetime.now() + timedelta(hours=3)
    places: list[str | Path] = [
        "--archive",
        root,
        "--output",
        folder / "out",
        "--ledger",
        folder / "ledger.db",
    ]
    summary = good(call("tierscale", "nightly", *places, "--until", f"{later:%H:%M}", *plain(run)))
    if (summary["new"], summary["done"]) != (3, 3):
        raise RuntimeError(f"not all images are done: {summary}")
    return several(folder / "out", "a.png", "b.tif", "deep/c.npy")


def several(root: Path, *names: str) -> Found:
    """What lies below an output root for sources of these names."""
    return {name: measured(root / f"{name}.zarr") for name in names}


def exported_tiff(run: Run, folder: Path) -> Found:
    """An output that is a TIFF: the zarr beside it, and all levels of the file."""
    good(call("tierscale", "upscale", run.source(folder), folder / "out.tif", *plain(run)))
    with tifffile.TiffFile(folder / "out.tif") as file:
        pages = enumerate(file.series[0].levels)
        levels = {str(number): described(level.asarray()) for number, level in pages}
    return {"out.zarr": measured(folder / "out.zarr"), "out.tif": {"tiles": {}, "arrays": levels}}


def exported_png(run: Run, folder: Path) -> Found:
    """An output that is exported to PNG by a command of its own."""
    found = upscaled(run, folder)
    good(call("tierscale", "export", folder / "out.zarr", folder / "out.png", "--json"))
    decoded = imagecodecs.png_decode((folder / "out.png").read_bytes())
    return {**found, "out.png": {"tiles": {}, "arrays": {"0": described(decoded)}}}


def array_in_memory(run: Run, folder: Path) -> Found:
    """`upscale_array` on an array in memory; the options are read as keywords."""
    with Image.open(run.source(folder)) as file:
        pixels = np.array(file)
    keywords = dict(pair.split("=") for pair in run.options.split())
    tile, budget = int(keywords.pop("tile")), float(keywords.pop("budget"))
    made = entry_points()["upscale_array"](
        pixels, 4, tile=tile, budget=budget, precision="fp32", **keywords
    )
    return {"array": {"tiles": {}, "arrays": {"0": described(made)}}}


TO_CARN = "bicubic,fsrcnn-x4,carn-x4"
TO_EDSR16 = "bicubic,edsr-x4,edsr16-x4"
# The defaults of version 0.1, by which the pixels on record were made.
DEFAULT = "bicubic,fsrcnn-x4,edsr-x4"
RUNS: tuple[Run, ...] = (
    # formats of TIFF, with all policies
    Run(
        "tiff-tiles-adaptive",
        inputs.tiled_tiff,
        f"--tile 32 --tiers {DEFAULT} --policy adaptive",
        quick=True,
    ),
    Run("tiff-strips-budget", inputs.strip_tiff, f"--tile 32 --budget 0.5 --tiers {DEFAULT}"),
    Run("tiff-planar-max-loss", inputs.planar_tiff, f"--tile 32 --max-loss 0.1 --tiers {DEFAULT}"),
    Run(
        "tiff-big-16-bit-threshold",
        inputs.big_tiff,
        f"--tile 32 --tiers {TO_CARN} --threshold 0.0018",
    ),
    Run(
        "ome-tiff-five-channels",
        inputs.ome_tiff,
        "--tile 16 --z 1 --tiers bicubic,fsrcnn-x4 --budget 0.7",
    ),
    Run(
        "tiff-three-channels-science",
        inputs.three_channel_tiff,
        f"--tile 32 --tiers {DEFAULT} --policy adaptive",
    ),
    Run("tiff-alpha-16-bit", inputs.alpha_tiff, f"--tile 32 --budget 0.5 --tiers {DEFAULT}"),
    Run(
        "geotiff-nodata-of-the-file",
        inputs.geo_tiff,
        f"--tile 32 --tiers {DEFAULT} --policy adaptive",
    ),
    Run(
        "tiff-nodata-asked",
        inputs.masked_tiff,
        "--tile 32 --nodata 0 --tiers bicubic,edsr-x4 --budget 0.7",
    ),
    # photos
    Run("png-8-full", inputs.png_8, f"--tile 48 --policy full --tiers {TO_EDSR16}"),
    Run(
        "png-16-adaptive",
        inputs.png_16,
        "--tile 32 --tiers bicubic,fsrcnn-x4 --policy adaptive",
        quick=True,
    ),
    Run(
        "png-grey-no-blend", inputs.grey_png, f"--tile 16 --blend 0 --budget 0.5 --tiers {DEFAULT}"
    ),
    Run(
        "png-interlaced-light",
        inputs.interlaced_png,
        "--policy light --tiers fsrcnn-x4,edsr-x4",
    ),
    Run("png-palette-x2", inputs.palette_png, "--scale 2 --tile 32 --policy adaptive"),
    Run("jpeg-long-deadline", inputs.jpeg, f"--tile 32 --deadline 100h --tiers {DEFAULT}"),
    Run(
        "jpeg-turned-region",
        inputs.turned_jpeg,
        f"--tile 32 --region 5,9,70,180 --tiers {DEFAULT} --policy adaptive",
    ),
    Run("webp-alpha", inputs.webp, f"--tile 32 --tiers {DEFAULT} --policy adaptive"),
    Run("jpeg-2000-x3", inputs.jpeg_2000, "--scale 3 --tile 32 --policy adaptive"),
    Run("pgm-one-tier", inputs.pgm, "--tiers edsr-x4"),
    # arrays
    Run(
        "npy-float-nan",
        inputs.float_npy,
        "--tile 32 --nodata nan --tiers bicubic,fsrcnn-x4 --policy adaptive",
        quick=True,
    ),
    Run(
        "npy-float-range-x8",
        inputs.float_npy,
        "--scale 8 --tile 48 --nodata nan --range -0.5,1.5 --tiers bicubic",
    ),
    Run(
        "zarr-2-range",
        inputs.zarr_2,
        f"--tile 32 --range 1000,50000 --tiers {DEFAULT} --policy adaptive",
    ),
    Run("zarr-3-large-tile", inputs.zarr_3, f"--tile 128 --tiers {TO_CARN} --policy adaptive"),
    Run(
        "ome-zarr",
        inputs.ome_zarr,
        "--tile 32 --tiers bicubic,fsrcnn-x4 --policy adaptive",
        quick=True,
    ),
    # scales and methods
    Run("anysr-x5-2", inputs.png_8, "--scale 5/2 --tile 32 --budget 0.8"),
    Run("pcsr", inputs.grey_png, "--tile 32 --tiers bicubic,pcsr-carn-x4@0.6 --budget 0.7"),
    Run("pcsr-any-scale", inputs.png_8, "--scale 3 --tile 48 --tiers pcsr-fsrcnn-x4@0.6"),
    Run("ape", inputs.png_8, "--tile 48 --tiers bicubic,ape-edsr-x4@0.6 --budget 0.8"),
    Run("adaedsr", inputs.png_8, "--tile 48 --tiers fsrcnn-x4,adaedsr-x4@0.5 --policy full"),
    Run("classsr", inputs.png_8, "--tile 48 --tiers bicubic,classsr-carn-x4@0.6 --policy full"),
    Run(
        "pcsr-auto",
        inputs.strip_tiff,
        "--tile 48 --tiers bicubic,pcsr-carn-x4@auto --policy full",
    ),
    # other ways to run
    Run(
        "ray-together",
        inputs.alpha_tiff,
        f"--tile 32 --budget 0.5 --layout together --tiers {DEFAULT}",
        carry_out=on_ray,
    ),
    Run(
        "ray-split",
        inputs.alpha_tiff,
        f"--tile 32 --budget 0.5 --layout split --tiers {DEFAULT}",
        carry_out=on_ray,
    ),
    Run(
        "manifest",
        inputs.folder_of_three,
        "--tile 24 --tiers bicubic,fsrcnn-x4 --policy adaptive",
        True,
        manifest,
    ),
    Run(
        "nightly",
        inputs.folder_of_three,
        f"--tile 32 --budget 0.5 --tiers {DEFAULT}",
        carry_out=nightly,
    ),
    Run(
        "export-tiff",
        inputs.alpha_tiff,
        "--tile 32 --tiers bicubic,fsrcnn-x4 --policy adaptive",
        carry_out=exported_tiff,
    ),
    Run(
        "export-png",
        inputs.png_16,
        f"--tile 32 --budget 0.3 --tiers {DEFAULT}",
        carry_out=exported_png,
    ),
    Run(
        "upscale-array",
        inputs.png_8,
        f"tile=32 budget=0.5 axes=yxc tiers={DEFAULT}",
        carry_out=array_in_memory,
    ),
)
BY_NAME = {run.name: run for run in RUNS}
# What must agree to the last bit among runs, whatever the processor.
SAME = {"ray-together": "tiff-alpha-16-bit", "ray-split": "tiff-alpha-16-bit"}


# comparing


def recorded() -> Found:
    """The record. It has `environment` and `runs`."""
    record: Found = json.loads(RECORD.read_text())
    return record


def differences(wanted: Found, found: Found, exact: bool) -> list[str]:
    """What a run gives otherwise than the record, in words.

    exact: compare by SHA-256; else by signature, within TOLERANCE.
    """
    if wanted.keys() != found.keys():
        return [f"outputs are {sorted(found)}, recorded are {sorted(wanted)}"]
    faults = []
    for output, old in wanted.items():
        new = found[output]
        # On another processor a tile whose score lies at a limit may change sides.
        slack = 0 if exact else 1
        before, after = Counter(old["tiles"]), Counter(new["tiles"])
        if any(abs(before[tier] - after[tier]) > slack for tier in before | after):
            faults.append(f"{output}: tiles by tier {new['tiles']}, recorded {old['tiles']}")
        if old["arrays"].keys() != new["arrays"].keys():
            faults.append(
                f"{output}: levels {sorted(new['arrays'])}, recorded {sorted(old['arrays'])}",
            )
            continue
        for level, array in old["arrays"].items():
            found_here = _array(array, new["arrays"][level], exact)
            faults.extend(f"{output} level {level}: {text}" for text in found_here)
    return faults


def _array(old: Found, new: Found, exact: bool) -> list[str]:
    """What differs in one array."""
    for name in ("shape", "dtype", "missing"):
        if old[name] != new[name]:
            return [f"{name} {new[name]}, recorded {old[name]}"]
    if exact and old["sha256"] == new["sha256"]:
        return []
    gap = _gap(old, new)
    if exact:
        sums = f"SHA-256 {new['sha256'][:12]}, recorded {old['sha256'][:12]}"
        return [f"other pixels ({sums}; largest gap of block means {gap:.2g})"]
    if gap > TOLERANCE:
        return [f"block means differ by {gap:.2g} of the range, more than {TOLERANCE}"]
    return []


def _gap(old: Found, new: Found) -> float:
    """The largest difference of two signatures, as a share of the recorded range."""
    (low, high), (other_low, other_high) = old["range"], new["range"]
    width = (high - low) or 1.0
    largest = 0.0
    for before, after in zip(old["signature"], new["signature"], strict=True):
        if (before is None) != (after is None):
            return 1.0
        if before is not None:
            now = (other_low + after * ((other_high - other_low) or 1.0) - low) / width
            largest = max(largest, abs(now - before))
    return largest


def check(run: Run, folder: Path, record: Found | None = None) -> tuple[list[str], str]:
    """Carry a run out and compare it with the record: what differs, and how it was compared."""
    record = record or recorded()
    there = record["environment"]
    here = {name: one for name, one in environment().items() if one != there.get(name)}
    other = [f"{name} is {one} and not {there.get(name)}" for name, one in here.items()]
    way = f"signature within {TOLERANCE}, because {'; '.join(other)}" if other else "exact SHA-256"
    if run.name not in record["runs"]:
        return ["there is no record of it; run with --record"], way
    return differences(record["runs"][run.name], run(folder), not other), way


# the command


def write(names: list[str]) -> None:
    """Record runs; all begin a new file, and single ones need the environment of the file."""
    fresh = set(names) == BY_NAME.keys()
    record = {"environment": environment(), "runs": {}} if fresh else recorded()
    if record["environment"] != environment():
        raise SystemExit("the record was made in another environment; record all runs")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            began = time.perf_counter()
            record["runs"][name] = BY_NAME[name](Path(folder))
            print(f"recorded {name:<32} {time.perf_counter() - began:5.1f} s", flush=True)
    for name, base in SAME.items():
        if record["runs"][name] != record["runs"][base]:
            raise SystemExit(f"{name} and {base} must agree to the last bit and do not")
    order = {name: record["runs"][name] for name in BY_NAME if name in record["runs"]}
    RECORD.write_text(text_of({"environment": record["environment"], "runs": order}))


def text_of(record: Found) -> str:
    """The record as JSON with one line for each array."""
    text = json.dumps(record, indent=1)
    lists = json.JSONEncoder().encode
    plain_record = json.loads(text)

    def lines(value: Any, depth: int) -> str:
        if isinstance(value, dict) and any(isinstance(one, dict) for one in value.values()):
            indent = " " * (depth + 1)
            inner = [f"{indent}{lists(key)}: {lines(one, depth + 1)}" for key, one in value.items()]
            return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}"
        return lists(value)

    return lines(plain_record, 0) + "\n"


def compare(names: list[str]) -> int:
    """Compare runs with the record, one line each; 1 when any differs."""
    record, bad = recorded(), 0
    for number, name in enumerate(names):
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            began = time.perf_counter()
            try:
                faults, way = check(BY_NAME[name], Path(folder), record)
            except Exception as error:  # one run that fails must not hide the others
                faults, way = [f"{type(error).__name__}: {error}"], "not compared"
        if number == 0:
            print(f"compared by {way}")
        bad += bool(faults)
        result = f"DIFFERS {'; '.join(faults)}" if faults else "OK"
        print(f"{name:<32} {time.perf_counter() - began:5.1f} s  {result}", flush=True)
    print(f"{len(names) - bad} of {len(names)} runs are as recorded")
    return int(bad > 0)


def main(arguments: list[str]) -> int:
    """The command of this module."""
    if arguments[:1] == ["--call"]:
        entry_points()[arguments[1]](arguments[2:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.golden.runs", description="Golden runs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs (default: all)")
    parser.add_argument("--record", action="store_true", help="write checksums.json")
    parser.add_argument("--list", action="store_true", help="name the runs")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in BY_NAME]:
        parser.error(f"there is no run {', '.join(unknown)}; --list names them")
    names = chosen.names or list(BY_NAME)
    torch.set_num_threads(1)
    if chosen.list:
        print("\n".join(names))
    elif chosen.record:
        write(names)
    else:
        return compare(names)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
