"""One image from file to closed output, on threads: what lies there afterwards, verify and heal,
status, export.
"""

import json
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
import zarr
from PIL import Image

from tests.commands import tierscale
from tierscale.jobs.cli.main import main
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.output import store
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.job import ImageJob as ImageJob
from tierscale.pipeline.run.run import Run
from tierscale.pipeline.run.verify import status_of
from tierscale.pipeline.run.workers.pool import LocalPool


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "coffee.png"
    Image.fromarray(skimage.data.coffee()[:300, :340]).save(path, dpi=(300, 300))
    return path


@pytest.fixture(scope="module")
def made(photo, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "coffee.zarr"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "upscale",
                str(photo),
                str(output),
                "--tiers",
                "bicubic,fsrcnn-x4",
                "--tile",
                "32",
                "--ray",
                "none",
            ]
        )
    assert not ended.value.code
    return output


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


def test_a_plan_that_was_changed_by_hand_is_refused(made, tmp_path, capsys):
    plain = json.loads((Folder(str(made)).path / "plan.json").read_text())
    plain["blend"] = 7
    (tmp_path / "x.zarr.tierscale").mkdir()
    (tmp_path / "x.zarr.tierscale/plan.json").write_text(json.dumps(plain))
    code, _, err = tierscale(capsys, "verify", tmp_path / "x.zarr")
    assert code == 2 and "was changed" in err


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "remove"])
def test_verify_finds_damage_and_heals_it(photo, tmp_path, capsys, damage):
    output = tmp_path / "out.zarr"
    options = ("--tiers", "bicubic", "--ray", "none", "--tile", "32")
    assert tierscale(capsys, "upscale", photo, output, *options)[0] == 0
    assert tierscale(capsys, "verify", output)[0] == 0
    before = zarr.open_array(f"{output}/0", mode="r")[:]
    shard = max(
        (Path(output) / "0" / "c").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    content = bytearray(shard.read_bytes())
    if damage == "remove":
        shard.unlink()
    else:
        content[len(content) // 3] ^= 0x55
        shard.write_bytes(
            {
                "flip": content,
                "truncate": content[: len(content) // 2],
                "zero": bytes(len(content)),
            }[damage]
        )
    code, _, err = tierscale(capsys, "verify", output)
    assert code == 1 and "shard" in err and "--heal" in err
    code, out, _ = tierscale(capsys, "verify", output, "--heal", "--json")
    assert code == 0 and json.loads(out)["healed"] == 1
    assert tierscale(capsys, "verify", output)[0] == 0
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], before)


def test_a_shard_without_receipt_is_done_again(photo, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    command = (
        "upscale",
        photo,
        output,
        "--tiers",
        "bicubic",
        "--ray",
        "none",
        "--tile",
        "32",
        "--json",
    )
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


def test_an_output_is_handed_out_as_a_dask_array_and_taken_as_one(made):
    lazy = store.as_dask(str(made), 1)
    assert lazy.shape == (3, 600, 680)
    np.testing.assert_array_equal(
        upscale_array(lazy[:, :50, :60], 2, tiers=["bicubic"]).shape, (3, 100, 120)
    )
    assert upscale_array(np.zeros((9, 8), np.uint8), tiers="bicubic, fsrcnn-x4").shape == (36, 32)
    assert upscale_array(np.zeros((9, 9), np.uint8), 7 / 3, tiers="bicubic").shape == (21, 21)
    with pytest.raises(
        ValueError, match="--threshold is for policy threshold and would be ignored by budget"
    ):
        upscale_array(np.zeros((9, 8), np.uint8), budget=0.5, threshold=0.1)
    with pytest.raises(
        ValueError, match="--budget is for policy budget and would be ignored by cheapest"
    ):
        upscale_array(np.zeros((9, 8), np.uint8), policy="cheapest", budget=0.5)
    with pytest.raises(Refused, match="int64"):
        upscale_array([[0, 1], [2, 3]])
    for scale in (float("nan"), "one", 0):
        with pytest.raises(Refused, match="scale"):
            upscale_array(np.zeros((9, 8), np.uint8), scale)


def test_status_tells_how_far(made):
    found = status_of(str(made), 0.0)
    assert found["status"] == "done" and found["shards"]["done"] == found["shards"]["total"] > 4


def test_export_keeps_pixels_and_resolution(made, tmp_path, capsys):
    assert tierscale(capsys, "export", made, tmp_path / "out.tif")[0] == 0
    assert tierscale(capsys, "export", made, tmp_path / "out.png")[0] == 0
    pixels = zarr.open_array(f"{made}/0", mode="r")[:].transpose(1, 2, 0)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.asarray(), pixels)
        assert file.series[0].levels[1].shape == (600, 680, 3)
        numerator, denominator = file.pages[0].tags["XResolution"].value
        # A PNG counts pixels by the metre; a TIFF has the centimetre for that.
        assert file.pages[0].tags["ResolutionUnit"].value == 3
        assert numerator / denominator == pytest.approx(1200 / 2.54, rel=1e-4)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out.png")), pixels)


def test_an_output_may_be_a_tiff(photo, tmp_path, capsys):
    code, out, err = tierscale(
        capsys,
        "upscale",
        photo,
        tmp_path / "x.tif",
        "--tiers",
        "bicubic",
        "--ray",
        "none",
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["output"].endswith("x.zarr") and tifffile.imread(
        tmp_path / "x.tif"
    ).shape == (1200, 1360, 3)


def test_plan_tells_what_it_will_take_and_writes_nothing(photo, tmp_path, capsys):
    code, out, _ = tierscale(
        capsys,
        "plan",
        photo,
        tmp_path / "out.zarr",
        "--tiers",
        "bicubic,fsrcnn-x4",
        "--budget",
        "0.5",
        "--json",
    )
    found = json.loads(out)
    assert code == 0 and found["cost_share"] <= 0.5 and found["refused"] is None
    assert {
        "memory_bytes",
        "disk_bytes",
        "seconds_estimate",
        "tile",
        "halo",
        "halo_overhead",
    } <= set(found)
    assert found["disk_bytes"] == 3 * (1200 * 1360 + 600 * 680)
    assert found["files"] == {} and list(tmp_path.iterdir()) == []
    plain = json.loads(
        tierscale(capsys, "plan", photo, tmp_path / "out.zarr", "--tiers", "bicubic", "--json")[1]
    )
    assert plain["halo_overhead"] == 0 < found["halo_overhead"], (
        "halos are those of the tiers that were chosen"
    )


def test_every_scale_has_a_network_but_1_which_says_so(photo, tmp_path, capsys):
    for scale, made, words in (
        ("5", "anysr-edsr", "no scout was fitted"),
        ("1", "bicubic", "no network was made for scale 1"),
    ):
        options = ("--scale", scale, "--region", "0,0,60,40", "--ray", "none", "--json")
        code, out, err = tierscale(capsys, "upscale", photo, tmp_path / f"{scale}.zarr", *options)
        assert code == 0, err
        found = json.loads(out)
        assert made in found["tiles"] and words in " ".join(found["notes"])


def test_a_budget_that_a_method_exceeds_is_told(tmp_path, capsys):
    """Noise makes a network that decides pixel by pixel compute more than its table expects."""
    np.save(
        tmp_path / "noise.npy",
        np.where(np.random.default_rng(0).random((3, 96, 96)) < 0.5, 0, 255).astype(np.uint8),
    )
    options = (
        "--tiers",
        "bicubic,pcsr-carn-x4@0.6",
        "--budget",
        "0.9",
        "--tile",
        "32",
        "--ray",
        "none",
        "--json",
    )
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
    assert (
        tierscale(
            capsys,
            "upscale",
            photo,
            output,
            "--tiers",
            "bicubic",
            "--ray",
            "none",
            "--region",
            "40,50,60,30",
        )[0]
        == 0
    )
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
    code, _, err = tierscale(
        capsys,
        "upscale",
        tmp_path / "cells.ome.tif",
        output,
        "--tiers",
        "bicubic",
        "--ray",
        "none",
        "--tile",
        "32",
    )
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
    """Whatever reads or writes pixels runs on a worker; the preview looks at the smallest level and
    few channels, whatever there are.
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
    request = ImageJob(
        str(tmp_path / "a.tif"),
        str(tmp_path / "out.zarr"),
        Options(tiers=("bicubic", "fsrcnn-x4"), budget=0.5, tile=64),
    )
    with LocalPool(2) as pool:
        Run(request, pool).carry_out()
    assert read[-1] == (6, 80, 600)
    with Image.open(tmp_path / "out.zarr.tierscale/preview.png") as preview:
        assert preview.size == (600, 80)
