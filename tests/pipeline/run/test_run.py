"""One image from file to closed output, on threads: what lies there afterwards."""

import json
import pickle
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import tifffile
import zarr
from PIL import Image

from tests.commands import tierscale
from tests.pipeline.run.upscaling import upscale
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.output import store
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool

BICUBIC = ("--tiers", "bicubic", "--ray", "none")


def test_the_array_is_that_of_the_python_api(made, photo):
    wanted = upscale_array(
        np.array(Image.open(photo)), 4, tiers=["bicubic", "fsrcnn-x4"], tile=32, axes="yxc"
    )
    np.testing.assert_array_equal(
        zarr.open_array(f"{made}/0", mode="r")[:], wanted.transpose(2, 0, 1)
    )


def test_smaller_levels_are_means(made):
    full, half = (zarr.open_array(f"{made}/{level}", mode="r")[:].astype(float) for level in (0, 1))
    np.testing.assert_allclose(half[:, 3, 5], full[:, 6:8, 10:12].mean(axis=(1, 2)), atol=0.5)


def test_a_shard_without_receipt_is_done_again(photo, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    command = ("upscale", photo, output, *BICUBIC, "--tile", "32", "--json")
    first = json.loads(tierscale(capsys, *command)[1])
    (Path(f"{output}.tierscale") / "receipts/0/1.1.json").unlink()
    (Path(f"{output}.tierscale") / "receipts/0/0.0.json").write_text("{torn")
    assert tierscale(capsys, "verify", output)[0] == 1
    second = json.loads(tierscale(capsys, *command)[1])
    assert second["shards"] == {
        **first["shards"],
        "done_before": first["shards"]["total"] - 2,
        "written": 2,
    }


def test_every_scale_has_a_network_but_1_which_says_so(photo, tmp_path, capsys):
    for scale, made, words in (
        ("5", "anysr-edsr", "too few to tell apart"),
        ("1", "bicubic", "no network was made for scale 1"),
    ):
        options = ("--scale", scale, "--region", "0,0,60,40", "--ray", "none", "--json")
        code, out, err = tierscale(capsys, "upscale", photo, tmp_path / f"{scale}.zarr", *options)
        assert code == 0, err
        found = json.loads(out)
        assert made in found["tiles"] and words in " ".join(found["notes"])


def test_a_budget_that_a_method_exceeds_is_reported(tmp_path, capsys):
    """Noise makes a network that decides pixel by pixel compute more than its table expects."""
    np.save(
        tmp_path / "noise.npy",
        np.where(np.random.default_rng(0).random((3, 96, 96)) < 0.5, 0, 255).astype(np.uint8),
    )
    tiers = ("--tiers", "bicubic,pcsr-carn-x4@0.6", "--budget", "0.9", "--tile", "32")
    options = (*tiers, "--ray", "none", "--json")
    code, out, _ = tierscale(
        capsys, "upscale", tmp_path / "noise.npy", tmp_path / "out.zarr", *options
    )
    found = json.loads(out)
    assert (
        code == 0
        and found["cost_share"] > 0.9
        and any("for a budget of 90.0%" in note for note in found["notes"])
    )


def test_a_region_is_a_trial_crop(photo, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    line = ("upscale", photo, output, *BICUBIC, "--region", "40,50,60,30")
    assert tierscale(capsys, *line)[0] == 0
    crop = np.array(Image.open(photo))[50:80, 40:100]
    wanted = upscale_array(crop, 4, tiers=["bicubic"], axes="yxc")
    np.testing.assert_array_equal(
        zarr.open_array(f"{output}/0", mode="r")[:].transpose(1, 2, 0), wanted
    )


def test_scientific_channels_keep_their_range_and_order(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pixels = np.stack(
        [rng.integers(100, 900, (60, 70)), rng.integers(2000, 4095, (60, 70))]
    ).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "cells.ome.tif",
        pixels,
        metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    output = tmp_path / "out.zarr"
    line = ("upscale", tmp_path / "cells.ome.tif", output, *BICUBIC, "--tile", "32")
    code, _, err = tierscale(capsys, *line)
    assert code == 0, err
    array = zarr.open_array(f"{output}/0", mode="r")[:]
    assert array.dtype == np.uint16 and array.shape == (2, 240, 280)
    assert (
        array[0].max() < 1500
        and array[1].min() > 1500
        and array.max() <= 4095
        and array.min() >= 100
    )
    scale = zarr.open_group(output, mode="r").attrs["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ][0]["scale"]
    assert scale == [1.0, 0.125, 0.125]


def test_other_scales_work(photo, tmp_path, capsys):
    for scale in ("2", "3", "5/2"):
        output = tmp_path / f"x{scale.replace('/', '_')}.zarr"
        code, out, err = tierscale(
            capsys, "upscale", photo, output, "--scale", scale, "--ray", "none", "--json"
        )
        assert code == 0, err
        height = int(300 * Fraction(scale))
        assert json.loads(out)["shape"] == [3, height, int(340 * Fraction(scale))]


def test_pixels_never_pass_the_driver(tmp_path, monkeypatch):
    """Whatever reads or writes pixels runs on a worker.

    The preview looks at the smallest level and few channels, whatever there are.
    """
    pixels = np.random.default_rng(0).integers(0, 4000, (7, 40, 300)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "CYX"}, ome=True)
    read: list[tuple[int, ...]] = []

    def on_workers(owner, name):
        real = getattr(owner, name)

        def watched(*arguments, **more):
            assert threading.current_thread().name.startswith("worker"), (
                f"{name} in {threading.current_thread().name}"
            )
            result = real(*arguments, **more)
            read.append(getattr(result, "shape", ()))
            return result

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (Source, "read"),
        (Source, "strips"),
        (store, "read_rect"),
        (store, "write_shard"),
    ):
        on_workers(owner, name)
    options = Options(tiers=("bicubic", "fsrcnn-x4"), policy=Budget(0.5), tile=64)
    upscale(tmp_path / "a.tif", tmp_path / "out.zarr", options, workers=2)
    assert read[-1] == (6, 80, 600)
    with Image.open(tmp_path / "out.zarr.tierscale/preview.png") as preview:
        assert preview.size == (600, 80)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The handle of a value that is not sent with the tasks that refer to it."""

    number: int

    def get(self):
        return SENT[self.number]


SENT: list[object] = []


class Weighing(LocalPool):
    """A pool that notes how many bytes each kind of task has at most, packed."""

    def __init__(self):
        super().__init__(1)
        self.most = {}

    def put(self, value):
        SENT.append(value)
        return Elsewhere(len(SENT) - 1)

    def submit(self, task, kind="light", as_reference=False, **more):
        name = type(task).__name__
        self.most[name] = max(self.most.get(name, 0), len(pickle.dumps(task)))
        return super().submit(task, kind, as_reference, **more)


def test_what_a_call_carries_does_not_grow_with_the_image(tmp_path):
    most = []
    for side in (96, 384):
        pixels = np.random.default_rng(0).integers(0, 255, (3, side, side)).astype(np.uint8)
        np.save(tmp_path / f"{side:03}.npy", pixels)
        options = Options(tiers=("bicubic", "fsrcnn-x4"), policy=Budget(0.5), tile=16)
        job = ImageJob(f"{tmp_path}/{side:03}.npy", f"{tmp_path}/{side:03}.zarr", options)
        with Weighing() as pool:
            assert upscale_image(job, pool).status == "done"
        most.append(pool.most)
    small, large = most
    assert {"ScoreTiles", "FinishShard"} < small.keys() < large.keys(), "only one has a pyramid"
    # Sixteen times the tiles: numbers get longer by a digit.
    assert all(large[name] < small[name] + 10 for name in small), (small, large)
