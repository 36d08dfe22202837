"""Small plans, and the bytes that they must give as long as BYTES_VERSION stays what it is.

    python -m tests.golden.same_bytes            compares; exit code 1 when bytes differ
    python -m tests.golden.same_bytes --record   records the bytes of this BYTES_VERSION

A plan names its weights by digest and holds its routes: what it gives depends on the code alone.
Recorded bytes are never recorded again under the same number and environment: whoever changes them
raises BYTES_VERSION. In another environment (see runs.py) signatures are compared.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden import inputs
from tests.golden.runs import Found, Run, differences, environment, measured, text_of
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output import tile_table
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan import plan as plans
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.stored import plan_from_json, plan_to_json, with_digest
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.storage.atomic import write_bytes, write_json

RECORD = Path(__file__).with_name("bytes_version.json")
# One for every kind of pixel and every kind of network; options as Options takes them.
CASES: dict[str, tuple[Run, dict[str, Any]]] = {
    name: (Run(name, source, ""), options)
    for name, source, options in (
        ("rgb", inputs.tiled_tiff, {"tile": 32}),
        ("16-bit", inputs.png_16, {"tile": 32, "tiers": "bicubic,fsrcnn-x4"}),
        ("float-nan", inputs.float_npy, {"tile": 32, "tiers": "bicubic,fsrcnn-x4"}),
        ("alpha", inputs.alpha_tiff, {"tile": 32, "tiers": "bicubic,edsr-x4"}),
        ("no-data", inputs.geo_tiff, {"tile": 32, "tiers": "bicubic,fsrcnn-x4"}),
        ("grey-x2", inputs.grey_png, {"tile": 16, "scale": 2, "tiers": "bicubic,carn-x2"}),
        ("large-tile", inputs.strip_tiff, {"tiers": "fsrcnn-x4,carn-x4"}),
        ("anysr-x5-2", inputs.png_8, {"tile": 32, "scale": "5/2", "tiers": "bicubic,anysr-edsr"}),
        ("pcsr", inputs.png_8, {"tile": 32, "tiers": "bicubic,pcsr-carn-x4@0.6"}),
        ("pcsr-auto", inputs.png_8, {"tile": 48, "tiers": "bicubic,pcsr-carn-x4@auto"}),
        ("ape", inputs.png_8, {"tile": 48, "tiers": "bicubic,ape-edsr-x4@0.6"}),
        ("adaedsr", inputs.png_8, {"tile": 48, "tiers": "fsrcnn-x4,adaedsr-x4@0.5"}),
        ("classsr", inputs.png_8, {"tile": 48, "tiers": "bicubic,classsr-carn-x4@0.6"}),
    )
}
# Part of the usual tests.
QUICK = ("rgb", "16-bit", "float-nan")


def source_of(name: str, folder: Path) -> Path:
    """The input of a case."""
    return CASES[name][0].source(folder)


def plan_of(name: str, folder: Path) -> Plan:
    """A new plan for a case, as this version makes it."""
    options = {"policy": "adaptive", "precision": "fp32", **CASES[name][1]}
    if name == "float-nan":
        options["nodata"] = float("nan")
    output = str(folder / "new.zarr")
    with LocalPool(1) as pool:
        upscale_image(ImageJob(str(source_of(name, folder)), output, Options(**options)), pool)
    return Folder(output).plan()


def bytes_of(document: Found, name: str, folder: Path) -> Found:
    """What a recorded plan gives: checksums and signatures of all levels of its output."""
    source, output = source_of(name, folder), str(folder / "out.zarr")
    plan = plan_from_json({**document, "uri": str(source)})
    with open_image(str(source)) as image:
        # Another library may compress the same pixels into another file.
        same = replace(plan.source, identity=dict(image.identity))
    plan = with_digest(replace(plan, source=same))
    beside = Folder(output)
    beside.path.mkdir()
    beside.write_plan(plan)
    scores = np.zeros((plan.routes.size, len(plan.tiers)), np.float32)
    write_bytes(beside.path / tile_table.NAME, tile_table.to_parquet(plan, scores))
    write_json(beside.path / "facts.json", {})
    with LocalPool(1) as pool:
        summary = upscale_image(ImageJob(str(source), output), pool)
    if summary.plan != plan.digest:
        raise RuntimeError(f"{name} was carried out by another plan than the one on record")
    return {"out.zarr": measured(Path(output))}


def recorded() -> Found:
    """The record: "plans" by name; "bytes", by number, entries with "environment" and "cases"."""
    record: Found = json.loads(RECORD.read_text())
    return record


def entry_of(record: Found, number: int) -> tuple[Found, bool]:
    """What is on record for a number, and whether it holds for this environment to the last bit.

    KeyError: nothing is on record for the number.
    """
    entries = record["bytes"][str(number)]
    here = [entry for entry in entries if entry["environment"] == environment()]
    return (here or entries)[-1], bool(here)


def check(name: str, folder: Path) -> list[str]:
    """What a plan gives otherwise than it must, in words."""
    record = recorded()
    entry, exact = entry_of(record, plans.BYTES_VERSION)
    found = bytes_of(record["plans"][name], name, folder)
    return differences(entry["cases"][name], found, exact)


def with_bytes(record: Found, number: int, here: Found, cases: Found) -> Found:
    """The record with the bytes of a number in an environment.

    ValueError: they are on record already, or are those of the number before: nothing changed.
    """
    entries = record["bytes"].get(str(number), [])
    if any(entry["environment"] == here for entry in entries):
        raise ValueError(
            f"the bytes of bytes_version {number} are on record for this environment; raise"
            " BYTES_VERSION in pipeline/plan/plan.py where they are meant to change"
        )
    for entry in record["bytes"].get(str(number - 1), []) if not entries else []:
        if entry["environment"] == here and entry["cases"] == cases:
            raise ValueError(
                f"the bytes of bytes_version {number} are those of {number - 1}; raise the number"
                " only when bytes change"
            )
    added = [*entries, {"environment": here, "cases": cases}]
    return {**record, "bytes": {**record["bytes"], str(number): added}}


def write() -> None:
    """Record the bytes of this BYTES_VERSION here, and plans for cases that have none."""
    record = recorded() if RECORD.is_file() else {"plans": {}, "bytes": {}}
    cases: Found = {}
    for name in CASES:
        with tempfile.TemporaryDirectory(prefix="same-bytes-") as folder:
            if name not in record["plans"]:
                record["plans"][name] = {**plan_to_json(plan_of(name, Path(folder))), "uri": ""}
            (Path(folder) / "again").mkdir()
            cases[name] = bytes_of(record["plans"][name], name, Path(folder) / "again")
            print(f"carried out {name}", flush=True)
    RECORD.write_text(text_of(with_bytes(record, plans.BYTES_VERSION, environment(), cases)))


def main(arguments: list[str]) -> int:
    """The command of this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.same_bytes")
    parser.add_argument("--record", action="store_true", help="write bytes_version.json")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.record:
        try:
            write()
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    bad = 0
    for name in CASES:
        with tempfile.TemporaryDirectory(prefix="same-bytes-") as folder:
            told = check(name, Path(folder))
        bad += bool(told)
        print(f"{name:<12} {'; '.join(told) or 'OK'}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
