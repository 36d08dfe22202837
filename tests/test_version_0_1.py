"""What version 0.1 left is known: outputs are skipped or gone on with, a ledger carried on."""

import contextlib
import json
import shutil
import sqlite3
import tarfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.golden.runs import call, environment, good, recorded

ARCHIVE = Path(__file__).parent / "golden/version_0_1.tar.gz"
# Where the archive was made: what is absolute in its ledger begins with this.
MADE_IN = "/tmp/tierscale-0.1"
OPTIONS = ("--tile", "8", "--tiers", "bicubic,edsr-x4", "--ray", "none", "--workers", "1", "--json")


@pytest.fixture
def old(tmp_path):
    """The archive, unpacked in a fresh folder, with the ledger told of the new place."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(tmp_path, filter="data")
    with contextlib.closing(sqlite3.connect(tmp_path / "nightly/ledger.db")) as ledger, ledger:
        for column in ("source", "output", "error"):
            ledger.execute(
                f"UPDATE sources SET {column} = replace({column}, ?, ?)",
                (MADE_IN, str(tmp_path)),
            )
    return tmp_path


def times(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def pixels(level):
    return zarr.open_array(str(level), mode="r")[:].astype(int)


def states(root):
    with contextlib.closing(sqlite3.connect(root / "nightly/ledger.db")) as ledger:
        found = ledger.execute(
            "SELECT source, state, attempts FROM sources ORDER BY source",
        ).fetchall()
    return {Path(source).name: (state, attempts) for source, state, attempts in found}


def test_a_finished_output_is_skipped(old):
    done = old / "single/done.zarr"
    before = times(done)
    found = good(call("tierscale", "upscale", old / "single/source.tif", done, *OPTIONS))
    assert found["shards"] == {"total": 9, "done_before": 9, "written": 0}
    assert times(done) == before, "no pixel is written again"
    assert good(call("tierscale", "verify", done, "--json"))["problems"] == []


def test_a_half_done_output_is_gone_on_with_and_becomes_the_same(old):
    half = old / "single/half.zarr"
    half_done = times(half / "0/c")
    assert len(half_done) == 2
    found = good(call("tierscale", "upscale", old / "single/source.tif", half, *OPTIONS))
    assert found["shards"] == {"total": 9, "done_before": 2, "written": 7}
    assert half_done.items() <= times(half).items(), "shards that were there stay"
    assert good(call("tierscale", "verify", half, "--json"))["problems"] == []
    # The archive was made on the machine of the record; another processor may round otherwise.
    slack = 0 if environment() == recorded()["environment"] else 1
    for level in "01":
        one, two = (pixels(old / f"single/{name}.zarr/{level}") for name in ("half", "done"))
        assert np.abs(one - two).max() <= slack, f"level {level}, compared with a slack of {slack}"


def night(root):
    later = datetime.now() + timedelta(hours=3)
    places = [
        "--archive",
        root / "nightly/archive",
        "--output",
        root / "nightly/out",
        "--ledger",
        root / "nightly/ledger.db",
    ]
    return call("tierscale", "nightly", *places, "--until", f"{later:%H:%M}", *OPTIONS)


def numbers(found):
    return {name: found[name] for name in ("new", "changed", "untouched", "failed")}


def test_a_ledger_is_carried_on(old):
    before = times(old / "nightly/out")
    assert states(old) == {"a.png": ("done", 0), "broken.png": ("failed", 1), "b.png": ("done", 0)}
    ended = night(old)
    assert ended.code == 1 and "broken.png" in ended.err
    assert numbers(json.loads(ended.out)) == {"new": 0, "changed": 0, "untouched": 3, "failed": 1}
    assert states(old)["broken.png"] == ("failed", 2) and times(old / "nightly/out") == before
    shutil.copy(old / "nightly/archive/a.png", old / "nightly/archive/broken.png")
    found = good(night(old))
    assert numbers(found) == {"new": 0, "changed": 1, "untouched": 2, "failed": 0}
    assert found["done"] == 1
    assert states(old) == {"a.png": ("done", 0), "broken.png": ("done", 0), "b.png": ("done", 0)}
    assert before.items() <= times(old / "nightly/out").items(), "what was done is not touched"
    mended, a = (pixels(old / f"nightly/out/{name}.png.zarr/0") for name in ("broken", "a"))
    assert np.abs(mended - a).max() <= 1, "the same pixels as the image that it is a copy of now"
