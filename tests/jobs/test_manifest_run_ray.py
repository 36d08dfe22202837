"""Which Ray a job uses: the cluster it was submitted to, one that is joined already, or its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import ray
from PIL import Image

import tierscale
from tests.conftest import ROOT
from tierscale.cluster import session
from tierscale.jobs.nightly import NightlyOptions, nightly

BICUBIC = tierscale.Options(tiers=("bicubic",))


class Started(Exception):
    """Ray would have been started, with these arguments."""


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "in/a.png")
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """Every cluster seems to answer, and ray.init() raises Started."""

    def init(**arguments):
        raise Started(arguments)

    monkeypatch.setattr(session, "answers", lambda address: True)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def by_python(archive):
    manifest = tierscale.Manifest.scan(archive / "in", "*.png", output_root=archive / "out")
    tierscale.upscale_dataset(manifest, BICUBIC, quiet=True)


def by_night(archive):
    folders = (str(archive / name) for name in ("in", "out", "nights.db"))
    nightly(NightlyOptions(*folders, "23:59", BICUBIC, quiet=True))


@pytest.mark.parametrize("way", [by_python, by_night])
def test_a_submitted_job_joins_its_cluster_and_any_other_starts_its_own(
    archive, started, monkeypatch, way
):
    with pytest.raises(Started) as alone:
        way(archive)
    assert alone.value.args[0]["address"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    with pytest.raises(Started) as submitted:
        way(archive)
    assert (
        submitted.value.args[0]["address"] == "auto" and "num_cpus" not in submitted.value.args[0]
    )


def test_what_a_job_asks_for_stands(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert [session.where_submitted(where) for where in ("local", "none", "10.0.0.6:1")] == [
        "auto",
        "none",
        "10.0.0.6:1",
    ]
    monkeypatch.delenv("RAY_ADDRESS")
    assert session.where_submitted("local") == "local"
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    assert [session.where_submitted(where) for where in ("local", "none")] == ["auto", "none"]


JOINED = """
import json, sys
import ray, tierscale
ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
before = ray.get_runtime_context().gcs_address
manifest = tierscale.Manifest.scan(sys.argv[1] + "/in", "*.png", output_root=sys.argv[1] + "/out")
table = tierscale.upscale_dataset(
    manifest, tierscale.Options(tiers=("bicubic",)), workers=1, quiet=True
)
still = ray.is_initialized() and ray.get_runtime_context().gcs_address == before
found = {"status": table["status"].to_pylist(), "still": still, "up": ray.get(ray.put(1))}
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_ray_that_runs_in_this_process_does_the_work_and_runs_on(archive):
    done = subprocess.run(
        [sys.executable, "-c", JOINED, str(archive)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"status": ["done"], "still": True, "up": 1}


def test_arrays_are_enlarged_here_whatever_cluster_there_is(tmp_path):
    code = """
import sys, numpy, tierscale
print(tierscale.upscale_array(numpy.zeros((9, 8), numpy.uint8), 4, tiers="bicubic").shape)
assert "ray" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "10.0.0.5:6379"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(36, 32)"
