"""The whole `upscale` on every odd and bad file of the reference set, under limits on memory and
time: it ends as the set's README says.

What a file must be read as, and why a bad one is turned away, is in test_odd_files.py; here it goes
through to a verified output, or leaves none.
"""

import json
import sys
from collections.abc import Iterator

import pytest
import zarr

from tests.end_to_end.test_odd_files import BAD, VALID, Worker
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.verify import is_finished as finished

# Streams, but its output would keep two cores busy for a day: it is turned away by the memory of
# its tile table.
TOO_LARGE = "bad/bomb_60000x60000_1bit.png"
ADDRESS_SPACE = 6 << 30
# What one file may take beyond the process that is waiting for it.
SLACK = 200 << 20
SECONDS = 30
LIMIT = "1600M"
# Images of more pixels are tried on a part of this width and height.
PIXELS, REGION = 100_000, (260, 200)

PROCESS = """
import contextlib, io, json, pathlib, resource, sys, time, warnings
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
warnings.simplefilter("error")
from tests.memory import peak
from tierscale.jobs.cli.main import main
from tierscale.models.registry import load
load("bicubic")
def outcome_of(arguments):
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, started, out, err, code = peak(), time.monotonic(), io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code or 0
    took = {"taken": peak() - before, "seconds": time.monotonic() - started}
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), **took}
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(outcome_of(json.loads(line))), flush=True)
"""


class Command(Worker):
    """A process that runs the command again and again."""

    seconds = SECONDS

    def command(self) -> list[str]:
        return [sys.executable, "-c", PROCESS, str(ADDRESS_SPACE)]


@pytest.fixture(scope="module")
def upscale() -> Iterator[Command]:
    made = Command()
    yield made
    made.stop()


def run_command(upscale, shared, tmp_path, name, *more):
    options = (
        "--scale",
        "2",
        "--tiers",
        "bicubic",
        "--ray",
        "none",
        "--workers",
        "1",
        "--max-memory",
        LIMIT,
        "--json",
    )
    return upscale.look(
        json.dumps(
            [
                "upscale",
                str(shared / "data/odd" / name),
                str(tmp_path / "out.zarr"),
                *options,
                *more,
            ]
        )
    )


@pytest.mark.parametrize("name", [name for name in VALID if name != TOO_LARGE])
def test_an_odd_file_goes_through_to_its_output(shared, upscale, tmp_path, name):
    wanted = VALID[name]
    channels, height, width = wanted.shape
    region: tuple[str, ...] = ()
    if height * width > PIXELS:
        width, height = min(width, REGION[0]), min(height, REGION[1])
        region = ("--region", f"0,0,{width},{height}")
    found = run_command(upscale, shared, tmp_path, name, *region)
    assert found["code"] == 0 and found["taken"] <= SLACK, found
    summary = json.loads(found["out"])
    assert summary["status"] == "done" and any(
        wanted.note in note for note in [*summary["notes"], ""] if wanted.note or not note
    )
    array = zarr.open_array(str(tmp_path / "out.zarr/0"), mode="r")
    assert (array.shape, array.dtype.name) == ((channels, 2 * height, 2 * width), wanted.dtype)
    folder = Folder(str(tmp_path / "out.zarr"))
    assert finished(folder, folder.plan()) and not (folder.path / "source.zarr").exists()


@pytest.mark.parametrize("name", [*BAD, TOO_LARGE])
def test_a_bad_file_ends_in_one_sentence_and_leaves_nothing(shared, upscale, tmp_path, name):
    outcome, reason = BAD.get(name, ("Refused", "--max-memory"))
    found = run_command(upscale, shared, tmp_path, name)
    assert (
        found["code"] == {"Refused": 2, "Damaged": 1}[outcome]
        and found["taken"] <= SLACK
        and found["seconds"] < 10
    ), found
    lines = found["err"].splitlines()
    assert (
        len(lines) == 1
        and lines[0].startswith("tierscale: ")
        and name in lines[0]
        and reason in lines[0]
    ), lines
    assert json.loads(found["out"])["status"] == "failed" and not list(tmp_path.iterdir())
