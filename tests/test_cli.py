"""Bad input gets one sentence, the right exit code, and loses nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.command import tierscale
from tierscale.models import registry as models
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import enlarge_array

ROOT = Path(__file__).resolve().parent.parent
FAST = ("--tiers", "bicubic", "--ray", "none")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    return path


def check(found, code, *words):
    """Exit code, one sentence on stderr with all the words, no traceback."""
    got, out, err = found
    lines = [line for line in err.splitlines() if line]
    assert got == code, err
    assert len(lines) == 1 and lines[0].startswith("tierscale: ") and "Traceback" not in err
    for word in words:
        assert word in lines[0]
    return out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--scale", "0"), 2, ("scale 0",)),
        (("--scale", "-4"), 2, ("scale -4",)),
        (("--scale", "four"), 2, ("'four'", "5/2")),
        (("--scale", "3", "--tiers", "fsrcnn-x4"), 2, ("fsrcnn-x4", "not made for scale 3", "x4")),
        (("--tiers", "esrgan"), 2, ("'esrgan'", "bicubic")),
        (("--tiers", "carn-x4,bicubic"), 2, ("cheap to dear",)),
        (("--tiers", "bicubic,bicubic"), 2, ("twice",)),
        (("--tiers", "file:/nowhere/x.safetensors"), 2, ("/nowhere/x.safetensors",)),
        (("--budget", "1.5"), 2, ("1.5",)),
        (("--budget", "0.0001", "--tiers", "bicubic,fsrcnn-x4"), 2, ("below the cheapest tier",)),
        (("--policy", "threshold"), 2, ("--threshold",)),
        (("--policy", "luck"), 2, ("luck",)),
        (("--tile", "4"), 2, ("tile of 4",)),
        (("--blend", "-1"), 2, ("blend of -1",)),
        (("--range", "5,1"), 2, ("range",)),
        (("--region", "0,0,60,10"), 2, ("region", "50x40")),
        (("--region", "0,0"), 2, ("region",)),
        (("--max-memory", "100M"), 2, ("GiB", "--max-memory")),
        (("--max-memory", "lots"), 2, ("'lots'",)),
        (("--device", "cuda"), 2, ("CUDA",)),
        (("--policy", "dearest", "--budget", "0.5"), 2, ("--budget", "dearest", "ignored")),
        (("--budget", "0.5", "--threshold", "0.1"), 2, ("--threshold", "budget", "ignored")),
        (("--no-such-option",), 2, ("--no-such-option",)),
    ],
)
def test_arguments_that_cannot_be(capsys, image, tmp_path, options, code, words):
    check(tierscale(capsys, "upscale", image, tmp_path / "out.zarr", *FAST, *options), code, *words)
    assert not (tmp_path / "out.zarr").exists()


def write(path, kind):
    """A bad source of some kind at `path`; its name."""
    rng = np.random.default_rng(0)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated jpeg":
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "truncated tiff":
        tifffile.imwrite(
            path, rng.integers(0, 255, (200, 200, 3), np.uint8), tile=(64, 64), compression="zlib"
        )
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "nan":
        tifffile.imwrite(path, np.full((60, 60), np.nan, np.float32))
    elif kind == "complex":
        np.save(path.with_suffix(".npy"), np.zeros((9, 9), np.complex64))
        return path.with_suffix(".npy")
    elif kind == "object":
        np.save(path.with_suffix(".npy"), np.array([[{}]]), allow_pickle=True)
        return path.with_suffix(".npy")
    elif kind == "zero-sized":
        np.save(path.with_suffix(".npy"), np.zeros((0, 9), np.uint8))
        return path.with_suffix(".npy")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "codes", "word"),
    [
        ("missing", (2,), "there is no file"),
        ("folder", (2,), "x.tif"),
        ("empty", (1, 2), "empty"),
        ("truncated jpeg", (1,), "x.tif"),
        ("truncated tiff", (1,), "x.tif"),
        ("nan", (2,), "--nodata"),
        ("complex", (2,), "complex"),
        ("object", (2,), "object"),
        ("zero-sized", (2,), "x.npy"),
    ],
)
def test_sources_that_cannot_be(capsys, tmp_path, kind, codes, word):
    source = write(tmp_path / "x.tif", kind)
    output = tmp_path / "out.zarr"
    code, out, err = tierscale(capsys, "upscale", source, output, *FAST, "--json")
    assert code in codes, err
    assert word in err and len(err.strip().splitlines()) == 1
    found = json.loads(out)
    assert found["status"] == "failed" and found["error"] in err
    assert tierscale(capsys, "status", output)[0] != 0, (
        "an output of a bad source must not look begun"
    )


def test_nan_that_is_declared_stays(capsys, tmp_path):
    values = np.ones((30, 30), np.float32) * np.linspace(0, 1, 30, dtype=np.float32)
    values[10:20, 10:20] = np.nan
    tifffile.imwrite(tmp_path / "x.tif", values)
    code, _, err = tierscale(
        capsys, "upscale", tmp_path / "x.tif", tmp_path / "out.zarr", *FAST, "--nodata", "nan"
    )
    assert code == 0, err
    assert np.isnan(zarr.open_array(str(tmp_path / "out.zarr/0"), mode="r")[:]).sum() == 1600


def test_nan_is_refused_also_where_a_range_is_given(capsys, tmp_path):
    values = np.ones((30, 30), np.float32)
    values[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "x.tif", values)
    output = tmp_path / "out.zarr"
    check(
        tierscale(capsys, "upscale", tmp_path / "x.tif", output, *FAST, "--range", "0,2"),
        2,
        "row 3, column 4",
        "--nodata",
    )
    with pytest.raises(Refused, match="row 3, column 4"):
        enlarge_array(values, Options(tiers=("bicubic",), value_range=(0.0, 2.0)), "yx")


def test_no_data_that_no_pixel_can_hold_marks_none(capsys, image, tmp_path):
    """-9999 in bytes would wrap to 241, which is a colour."""
    code, out, err = tierscale(
        capsys, "upscale", image, tmp_path / "a.zarr", *FAST, "--nodata", "-9999", "--json"
    )
    assert code == 0 and "-9999 cannot occur in uint8" in json.loads(out)["notes"][0], err
    assert tierscale(capsys, "upscale", image, tmp_path / "b.zarr", *FAST)[0] == 0
    a, b = (zarr.open_array(str(tmp_path / f"{name}.zarr/0"), mode="r")[:] for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_alpha_does_not_stretch_the_measured_range(capsys, tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.stack(
        [*rng.integers(1000, 4000, (3, 40, 50)), np.full((40, 50), 65535)], axis=-1
    ).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    assert tierscale(capsys, "upscale", tmp_path / "x.tif", tmp_path / "out.zarr", *FAST)[0] == 0
    plan = Folder(str(tmp_path / "out.zarr")).plan()
    assert (plan.levels.low, plan.levels.high) == (pixels[..., :3].min(), pixels[..., :3].max())
    out = zarr.open_array(str(tmp_path / "out.zarr/0"), mode="r")[:]
    assert out[:3].max() <= 4000 and (out[3] == 65535).all()


def test_outputs_that_are_not_ours_are_left_alone(capsys, image, tmp_path):
    foreign = tmp_path / "foreign.zarr"
    zarr.create_array(str(foreign), shape=(4, 4), dtype="u1")
    for extra in ((), ("--overwrite",)):
        check(
            tierscale(capsys, "upscale", image, foreign, *FAST, *extra),
            2,
            "was not made by tierscale",
        )
    assert zarr.open_array(str(foreign), mode="r").shape == (4, 4)
    check(
        tierscale(capsys, "upscale", foreign, foreign / "inside.zarr", *FAST),
        2,
        "inside the source",
    )
    check(tierscale(capsys, "upscale", foreign, foreign, *FAST), 2, "inside the source")
    check(
        tierscale(capsys, "upscale", image, tmp_path / "foreign.tif", *FAST),
        2,
        "foreign.tif",
        "foreign.zarr",
        "not made by tierscale",
    )
    check(tierscale(capsys, "upscale", image, tmp_path / "out.jpg", *FAST), 2, ".zarr, .tif, .png")


def test_an_output_that_is_the_source_or_beside_it_is_refused(capsys, image, tmp_path):
    assert tierscale(capsys, "upscale", image, tmp_path / "a.zarr", *FAST)[0] == 0
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    kept = Path(f"{tmp_path}/a.zarr.tierscale/source.zarr")
    assert tierscale(capsys, "ingest", image, kept)[0] == 0
    for source, output in (
        (tmp_path / "a.zarr", tmp_path / "a.zarr"),
        (tmp_path / "a.zarr", tmp_path / "a.tif"),
        (tmp_path / "a.zarr/0", tmp_path / "a.tif"),
        (kept, tmp_path / "a.zarr"),
    ):
        for extra in ((), ("--overwrite",)):
            check(
                tierscale(capsys, "upscale", source, output, *FAST, *extra),
                2,
                str(source),
                str(output),
                "choose a",
            )
    assert kept.exists() and set(before) < {path for path in tmp_path.rglob("*") if path.is_file()}


def test_a_source_may_be_called_source_zarr(capsys, image, tmp_path):
    assert tierscale(capsys, "ingest", image, tmp_path / "source.zarr")[0] == 0
    assert (
        tierscale(capsys, "upscale", tmp_path / "source.zarr", tmp_path / "out.zarr", *FAST)[0] == 0
    )
    assert zarr.open_array(str(tmp_path / "source.zarr"), mode="r").shape == (3, 40, 50)


def test_overwrite_keeps_the_finished_output_until_nothing_refuses_the_new_plan(
    capsys, image, tmp_path, monkeypatch
):
    output = tmp_path / "out.zarr"
    assert tierscale(capsys, "upscale", image, output, *FAST)[0] == 0
    pixels = zarr.open_array(f"{output}/0", mode="r")[:]
    again = ("--ray", "none", "--tiers", "bicubic,fsrcnn-x4", "--overwrite")
    check(
        tierscale(capsys, "upscale", image, output, *again, "--budget", "0.0001"),
        2,
        "below the cheapest tier",
    )
    with monkeypatch.context() as patch:
        patch.setattr("tierscale.pipeline.run.resources.disk", lambda plan: 1 << 60)
        check(
            tierscale(capsys, "upscale", image, output, *again, "--policy", "dearest"),
            2,
            "free; choose another place",
        )
    assert tierscale(capsys, "plan", image, output, *again, "--policy", "dearest")[0] == 0, (
        "a plan writes nothing"
    )
    assert tierscale(capsys, "verify", output)[0] == 0
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], pixels)
    assert tierscale(capsys, "upscale", image, output, *again, "--policy", "dearest")[0] == 0
    assert (zarr.open_array(f"{output}/0", mode="r")[:] != pixels).any() and tierscale(
        capsys, "verify", output
    )[0] == 0
    assert {path.name for path in Path(f"{output}.tierscale").iterdir()}.isdisjoint(
        {"replaced", "lease.json", "source.zarr"}
    )


def test_a_plan_that_another_run_stored_meanwhile_is_seen(capsys, image, tmp_path, monkeypatch):
    from tierscale.pipeline.storage import lease

    output = tmp_path / "out.zarr"
    enter = lease.Lease.__enter__

    def late(self):
        monkeypatch.undo()
        assert tierscale(capsys, "upscale", image, output, *FAST, "--tile", "16")[0] == 0
        return enter(self)

    monkeypatch.setattr(lease.Lease, "__enter__", late)
    check(tierscale(capsys, "upscale", image, output, *FAST), 2, "tile 16, now 128")
    assert tierscale(capsys, "verify", output)[0] == 0


def test_a_full_disk_is_one_sentence_and_what_is_done_stays(capsys, image, tmp_path, monkeypatch):
    import errno

    from tierscale.pipeline.output import receipts, store

    calls = []

    def failing(real):
        def write(*arguments):
            calls.append(1)
            if len(calls) > 3:
                arguments[0].close()
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return write

    command = ("upscale", image, tmp_path / "out.zarr", *FAST, "--tile", "8")
    with monkeypatch.context() as patch:
        patch.setattr(store, "sync", failing(store.sync))
        check(tierscale(capsys, *command), 1, "full", "same command again")
    assert not list(Path(f"{tmp_path}/out.zarr.tierscale").glob("*.tmp"))
    code, out, _ = tierscale(capsys, *command, "--json")
    assert code == 0 and json.loads(out)["status"] == "done"
    assert receipts.Folder(str(tmp_path / "out.zarr")).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small read-only file system takes root")
def test_a_target_that_cannot_be_written(capsys, image, tmp_path):
    target = tmp_path / "mount"
    target.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(target)], capture_output=True
    ).returncode:
        target.rmdir()
        target.write_text(
            ""
        )  # no mounts here: a file in the place of the folder cannot be written into either
        check(
            tierscale(capsys, "upscale", image, target / "out.zarr", *FAST), 1, "cannot be written"
        )
        return
    try:
        check(
            tierscale(capsys, "upscale", image, target / "out.zarr", *FAST), 2, "cannot be written"
        )
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_json_is_one_object_on_success_and_failure(capsys, image, tmp_path):
    out = tierscale(capsys, "upscale", image, tmp_path / "out.zarr", *FAST, "--json")[1]
    found = json.loads(out)
    keys = {
        "status",
        "output",
        "plan",
        "shape",
        "dtype",
        "scale",
        "tiles",
        "cost",
        "cost_share",
        "seconds",
        "shards",
        "files",
        "error",
    }
    assert keys <= set(found)
    assert set(found["seconds"]) == {"ingest", "score", "enlarge", "stitch", "pyramid", "total"}
    assert set(found["shards"]) == {"total", "done_before", "written"} and set(found["files"]) == {
        "preview",
        "routing",
        "tiles",
    }
    failed = json.loads(
        tierscale(capsys, "upscale", image, tmp_path / "out.zarr", *FAST, "--tile", "9", "--json")[
            1
        ]
    )
    assert failed["status"] == "failed" and "another plan" in failed["error"]


def test_models_lists_what_can_be_a_tier(capsys):
    code, out, _ = tierscale(capsys, "models", "--json")
    names = {entry["name"] for entry in json.loads(out)["models"]}
    assert code == 0 and {"bicubic", "fsrcnn-x4", "carn-x4"} <= names
    assert {"name", "scales", "parameters", "reach", "cost_per_pixel", "psnr"} <= set(
        json.loads(out)["models"][0]
    )
    assert "carn-x4" in tierscale(capsys, "models")[1]


def test_ingest_makes_an_array_that_enlarges_alike(capsys, image, tmp_path):
    assert tierscale(capsys, "ingest", image, tmp_path / "in.zarr")[0] == 0
    assert tierscale(capsys, "upscale", image, tmp_path / "a.zarr", *FAST)[0] == 0
    assert tierscale(capsys, "upscale", tmp_path / "in.zarr", tmp_path / "b.zarr", *FAST)[0] == 0
    a, b = (zarr.open_array(str(tmp_path / f"{name}.zarr/0"), mode="r")[:] for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_evaluate_measures_by_the_protocol(capsys, tmp_path):
    import skimage.data

    Image.fromarray(skimage.data.coffee()[:131, :123]).save(tmp_path / "colour.png")
    Image.fromarray(skimage.data.camera()[:100, :100]).save(tmp_path / "grey.png")
    code, out, err = tierscale(
        capsys,
        "evaluate",
        "--hr",
        tmp_path,
        "--tiers",
        "bicubic,fsrcnn-x4",
        "--policy",
        "dearest",
        "--json",
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["protocol"] == "rgb, shave=scale, float lr" and {
        image["name"] for image in found["images"]
    } == {"colour.png", "grey.png"}
    coloured = next(image for image in found["images"] if image["name"] == "colour.png")
    assert found["mean"]["psnr"] == coloured["psnr"] > 20 and coloured[
        "cost_share"
    ] == pytest.approx(1, rel=1e-3)
    check(tierscale(capsys, "evaluate", "--hr", tmp_path / "none"), 2, "there is no folder")
    (tmp_path / "empty").mkdir()
    check(tierscale(capsys, "evaluate", "--hr", tmp_path / "empty"), 2, "holds no images")


def test_evaluate_takes_images_of_one_or_three_colours(capsys, tmp_path):
    np.save(tmp_path / "five.npy", np.zeros((5, 64, 64), np.uint8))
    code, out, _ = tierscale(capsys, "evaluate", "--hr", tmp_path, "--tiers", "bicubic", "--json")
    assert code == 1 and "five.npy holds 5 channels" in json.loads(out)["images"][0]["error"]


def test_evaluate_lists_what_fails_and_goes_on(capsys, image, tmp_path):
    (tmp_path / "a broken.png").write_bytes(image.read_bytes()[:200])
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(tmp_path / "small.png")
    command = ("evaluate", "--hr", tmp_path, "--tiers", "bicubic", "--scale", "4")
    code, out, err = tierscale(capsys, *command, "--json")
    found = json.loads(out)
    assert (code, found["status"]) == (1, "failed") and "2 of 3 images failed" in found["error"]
    assert err == "tierscale: 2 of 3 images failed\n"
    broken, good, small = found["images"]
    assert (
        "a broken.png" in broken["error"]
        and broken["psnr"] is None
        and small["psnr"] is None
        and "0x0" in small["error"]
    )
    assert good["error"] is None and found["mean"]["psnr"] == good["psnr"] > 0
    code, out, _ = tierscale(capsys, *command)
    assert code == 1 and "a broken.png" in out and "failed: " in out


def test_no_file_of_the_users_is_replaced_by_an_export(capsys, image, tmp_path):
    output, letter, mine = tmp_path / "a.zarr", tmp_path / "letter.tif", tmp_path / "a.tif"
    before = image.read_bytes()
    assert tierscale(capsys, "upscale", image, output, *FAST)[0] == 0
    letter.write_text("dear")
    mine.write_text("mine")
    for file in (image, letter):
        check(tierscale(capsys, "export", output, file), 2, file.name, "--overwrite")
    check(tierscale(capsys, "upscale", image, mine, *FAST), 2, "a.tif", "--overwrite")
    check(tierscale(capsys, "export", output, output / "b.tif"), 2, "b.tif", "lies in")
    assert (image.read_bytes(), letter.read_text(), mine.read_text()) == (before, "dear", "mine")
    for _ in range(2):  # what it wrote itself it may write again
        assert tierscale(capsys, "export", output, tmp_path / "made.tif")[0] == 0
    assert tierscale(capsys, "export", output, letter, "--overwrite")[0] == 0


def test_what_cannot_be_read_or_written_is_one_sentence_in_every_command(capsys, image, tmp_path):
    lost = tmp_path / "none" / "x.safetensors"
    weights = Path(models.__file__).parent / "zoo" / "fsrcnn-x4.safetensors"
    check(
        tierscale(
            capsys, "plan", image, tmp_path / "b.zarr", "--curve", image / "c.png", "--ray", "none"
        ),
        2,
        "no folder",
        "a.png",
    )
    check(tierscale(capsys, "models", "convert", weights, "--method", "fsrcnn", "-o", lost), 2)
    (tmp_path / "empty.pth").touch()
    check(
        tierscale(
            capsys,
            "models",
            "convert",
            tmp_path / "empty.pth",
            "--method",
            "edsr",
            "-o",
            tmp_path / "x.safetensors",
        ),
        2,
        "empty.pth",
    )


def test_values_that_no_network_takes_name_the_image_and_the_value(capsys, tmp_path):
    np.save(tmp_path / "i.npy", np.where(np.eye(20, dtype=bool), np.inf, 0.5).astype(np.float32))
    check(
        tierscale(capsys, "upscale", tmp_path / "i.npy", tmp_path / "out.zarr", *FAST),
        2,
        "i.npy",
        "--nodata inf",
    )
    assert (
        tierscale(
            capsys, "upscale", tmp_path / "i.npy", tmp_path / "out.zarr", *FAST, "--nodata", "inf"
        )[0]
        == 0
    )


def test_the_command_starts_quickly_and_knows_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "tierscale", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout.startswith("tierscale, version")
