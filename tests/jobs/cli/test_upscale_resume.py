"""Stop and go on: whatever ends a run, the same command finishes it, with the same bytes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import skimage.data
import zarr
from PIL import Image

from tests import commands
from tests.conftest import ROOT
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.array import upscale_array

# Many shards of a good part of a second each: enough to be caught at work.
OPTIONS = (
    "--tiers",
    "bicubic,fsrcnn-x4",
    "--policy",
    "budget",
    "--budget",
    "0.9",
    "--tile",
    "24",
    "--workers",
    "2",
)
SHARDS = 25


def tierscale(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tierscale", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=240):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def run(*arguments):
    return finish(tierscale(*arguments))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "stars.png"
    Image.fromarray(skimage.data.hubble_deep_field()[100:800, 200:900]).save(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(image, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "whole.zarr"
    code, _, err = run("upscale", image, output, *OPTIONS, "--ray", "none")
    assert code == 0, err
    return zarr.open_array(f"{output}/0", mode="r")[:]


def receipts(output):
    return len(list(Path(f"{output}.tierscale").glob("receipts/0/*.json")))


def wait_for_receipts(output, process, count=2):
    until = time.monotonic() + 120
    while receipts(output) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "no receipts in two minutes"
        time.sleep(0.02)


def check_whole(image, output, undisturbed, done_at_least=1):
    """The same command without Ray finishes what is left; no shard with a receipt is made again."""
    before = receipts(output)
    assert before >= done_at_least
    code, out, err = run("upscale", image, output, *OPTIONS, "--ray", "none", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["status"] == "done" and summary["shards"]["done_before"] >= before
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], undisturbed)
    assert not Path(f"{output}.tierscale/lease.json").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_polite_stop_drains_and_says_how_to_go_on(image, undisturbed, tmp_path, number, code):
    output = tmp_path / "out.zarr"
    process = tierscale("upscale", image, output, *OPTIONS, "--json")
    wait_for_receipts(output, process)
    process.send_signal(number)
    got, out, err = finish(process)
    assert got == code, err
    assert "run the same command again to resume" in err.splitlines()[-1]
    assert json.loads(out)["status"] == "interrupted"
    assert receipts(output) < SHARDS
    check_whole(image, output, undisturbed)


def test_a_killed_driver_loses_only_what_was_in_flight(image, undisturbed, tmp_path):
    output = tmp_path / "out.zarr"
    process = tierscale("upscale", image, output, *OPTIONS, "--layout", "split")
    wait_for_receipts(output, process)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    check_whole(image, output, undisturbed, 2)


def descendants(process, word):
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if word in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("layout", [pytest.param("together", marks=pytest.mark.slow), "split"])
def test_a_killed_actor_is_replaced_and_its_work_done_again(image, undisturbed, tmp_path, layout):
    output = tmp_path / "out.zarr"
    process = tierscale("upscale", image, output, *OPTIONS, "--layout", layout)
    wait_for_receipts(output, process, 1)
    victims = descendants(process, "ray::Worker")
    assert victims
    victims[0].kill()
    code, _, err = finish(process)
    assert code == 0, err
    assert receipts(output) == SHARDS
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], undisturbed)


def test_a_pool_of_one_goes_on_when_its_only_actor_dies(image, tmp_path):
    """With names relative to the driver's folder, which is not that of workers on a cluster."""
    pixels = np.array(Image.open(image))[:200, :150]
    Image.fromarray(pixels).save(tmp_path / "crop.png")
    options = (
        "--tiers",
        "bicubic,fsrcnn-x4",
        "--policy",
        "full",
        "--tile",
        "24",
        "--workers",
        "1",
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tierscale",
            "upscale",
            "crop.png",
            "out.zarr",
            *options,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_receipts(tmp_path / "out.zarr", process, 1)
    (victim,) = descendants(process, "ray::Worker")
    victim.kill()
    code, _, err = finish(process)
    assert code == 0 and "is replaced" in err, err
    assert Folder(str(tmp_path / "out.zarr")).plan().source.uri == str(tmp_path / "crop.png")
    wanted = upscale_array(
        pixels, 4, tiers=["bicubic", "fsrcnn-x4"], policy="full", tile=24, axes="yxc"
    )
    np.testing.assert_array_equal(
        zarr.open_array(f"{tmp_path}/out.zarr/0", mode="r")[:].transpose(1, 2, 0), wanted
    )


@pytest.mark.slow
def test_a_killed_raylet_ends_the_run_and_the_next_one_finishes(image, undisturbed, tmp_path):
    output = tmp_path / "out.zarr"
    process = tierscale("upscale", image, output, *OPTIONS)
    raylet = wait_for_raylet(process)
    wait_for_receipts(output, process, 1)
    # Actors go on without a raylet for some seconds, in which all may be done: the driver is held
    # until they have noticed.
    process.send_signal(signal.SIGSTOP)
    raylet.kill()
    time.sleep(20)
    process.send_signal(signal.SIGCONT)
    code, _, _ = finish(process)
    assert code != 0
    check_whole(image, output, undisturbed)


def wait_for_raylet(process):
    """Ray's own process, looked for before there is work, which may be over soon."""
    until = time.monotonic() + 120
    while True:
        for child in descendants(process, "raylet"):
            with contextlib.suppress(psutil.Error):
                if child.name() == "raylet":
                    return child
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "no raylet in two minutes"
        time.sleep(0.1)


def test_another_plan_on_the_same_output_is_refused(image, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    options = ("--tiers", "bicubic", "--ray", "none", "--region", "0,0,200,200")
    line = ("upscale", image, output, *options)
    assert commands.tierscale(capsys, *line)[0] == 0
    code, _, err = commands.tierscale(capsys, *line, "--tile", "64")
    assert code == 2
    assert "was begun with another plan (tile 128, now 64)" in err and len(err.splitlines()) == 1
    two = ("--tiers", "bicubic,fsrcnn-x4", "--budget", "0.5")
    code, _, err = commands.tierscale(capsys, *line, *two)
    assert code == 2 and "(tiers " in err
    assert "; policy max-loss 0.05, now budget 0.5)" in err
    assert commands.tierscale(capsys, *line, "--tile", "64", "--overwrite")[0] == 0


def test_a_changed_source_is_another_plan(image, tmp_path, capsys):
    copy, output = tmp_path / "copy.png", tmp_path / "out.zarr"
    pixels = np.array(Image.open(image))[:200, :200]
    Image.fromarray(pixels).save(copy)
    line = ("upscale", copy, output, "--tiers", "bicubic", "--ray", "none")
    assert commands.tierscale(capsys, *line)[0] == 0
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(copy)
    code, _, err = commands.tierscale(capsys, *line)
    assert code == 2 and "source" in err


def test_two_runs_on_one_output_do_not_mix(image, tmp_path):
    output = tmp_path / "out.zarr"
    first = tierscale("upscale", image, output, *OPTIONS, "--ray", "none")
    wait_for_receipts(output, first)
    first.send_signal(signal.SIGSTOP)
    code, _, err = run("upscale", image, output, *OPTIONS, "--ray", "none")
    assert code == 2 and f"process {first.pid}" in err
    first.kill()
    finish(first)
