"""What signals do: nothing incomplete is left under a final name, and exit codes are as stated."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import tierscale
from tierscale.jobs.cli import progress
from tierscale.pipeline.formats.arrays.ingest import ingest, rows_done
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run import worker
from tierscale.pipeline.run.job import ImageJob as ImageJob
from tierscale.pipeline.run.run import Run
from tierscale.pipeline.run.workers.pool import LocalPool

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
FAST = ("--tiers", "bicubic", "--ray", "none")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1100, 200), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def output(source, tmp_path_factory):
    made = tmp_path_factory.mktemp("made") / "out.zarr"
    with LocalPool(1) as pool:
        Run(
            ImageJob(str(source), str(made), Options(tiers=("bicubic",), region=(0, 0, 200, 200))),
            pool,
        ).carry_out()
    return made


@pytest.fixture
def signalled(monkeypatch):
    """Sends the process a signal as soon as a stage has made some progress."""

    def when(stage, number):
        sent = []

        def told(self, at, done, total):
            if at == stage and done and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)

        monkeypatch.setattr(progress.Bar, "__call__", told)

    return when


def check_stopped(found, code, file):
    got, out, err = found
    assert got == code, err
    assert (
        json.loads(out)["status"] == "interrupted" and "same command again" in err.splitlines()[-1]
    )
    assert not [
        path.name for path in Path(file).parent.iterdir() if path.name.startswith(Path(file).name)
    ]


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("name", ["x.tif", "x.png"])
def test_an_export_that_is_stopped_leaves_no_file(
    output, tmp_path, capsys, signalled, number, code, name
):
    signalled("export", number)
    check_stopped(
        tierscale(capsys, "export", output, tmp_path / name, "--json"), code, tmp_path / name
    )


@pytest.mark.parametrize(("number", "code"), CODES)
def test_an_ingest_that_is_stopped_leaves_no_copy(
    source, tmp_path, capsys, signalled, number, code
):
    signalled("ingest", number)
    check_stopped(
        tierscale(capsys, "ingest", source, tmp_path / "x.zarr", "--json"),
        code,
        tmp_path / "x.zarr",
    )


def test_an_upscaling_that_is_stopped_in_its_export_goes_on_there(
    source, tmp_path, capsys, signalled, monkeypatch
):
    command = ("upscale", source, tmp_path / "x.tif", *FAST, "--region", "0,0,200,200", "--json")
    with monkeypatch.context():
        signalled("export", signal.SIGTERM)
        code, out, err = tierscale(capsys, *command)
    assert (
        code == 143
        and json.loads(out)["status"] == "interrupted"
        and not (tmp_path / "x.tif").exists()
    ), err
    monkeypatch.undo()
    code, out, err = tierscale(capsys, *command)
    assert (
        code == 0 and json.loads(out)["shards"]["written"] == 0 and (tmp_path / "x.tif").exists()
    ), err


def test_a_place_that_cannot_be_is_refused(output, tmp_path, capsys):
    (tmp_path / "folder.tif").mkdir()
    for file, words in ((tmp_path / "none/x.tif", "there is no folder"), (tmp_path / "none/x.png", "there is no folder"),
                        (tmp_path / "folder.tif", "it is a folder")):  # fmt: skip
        code, _, err = tierscale(capsys, "export", output, file)
        assert code == 2 and words in err and str(file) in err, err


def test_an_ingest_tells_how_far_it_is(source, tmp_path, monkeypatch):
    seen = []
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(
            image, copy, progress=lambda done, total: seen.append((done, total, rows_done(copy)))
        )
    # The row that was begun last may not be whole yet.
    assert seen == [(1, 3, (0, 3)), (2, 3, (1, 3)), (3, 3, (2, 3))] and rows_done(
        str(tmp_path / "none.zarr")
    ) == (0, 1)

    def slow(self, uri, selection, path, max_bytes):
        with open_image(uri, selection) as image:
            ingest(image, path, progress=lambda done, total: time.sleep(1.1))

    monkeypatch.setattr(worker.Worker, "ingest", slow)
    told = []
    request = ImageJob(
        str(source),
        str(tmp_path / "x.zarr"),
        Options(tiers=("bicubic",), scale=Options().scale / 2),
    )
    with LocalPool(1) as pool:
        Run(request, pool, lambda stage, done, total: told.append((stage, done, total))).carry_out()
    rows = [(done, total) for stage, done, total in told if stage == "ingest"]
    assert rows[-1] == (3, 3) and (1, 3) in rows
