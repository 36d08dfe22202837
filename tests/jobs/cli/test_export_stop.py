"""Exports and ingests that are told to stop leave nothing under the final name."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.commands import tierscale
from tierscale.jobs.cli import progress

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
FAST = ("--tiers", "bicubic", "--ray", "none")


@pytest.fixture
def signalled(monkeypatch):
    """A function: once it is called, the process gets a signal when a stage has made progress."""

    def when(stage, number):
        sent = []

        def stop(self, at, done, total):
            if at == stage and done and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)

        monkeypatch.setattr(progress.Bar, "__call__", stop)

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
