"""Bad input of upscale gets one sentence and the right exit code, and loses nothing."""

import errno
import json
import os
import subprocess

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.commands import FAST, check_refusal, tierscale
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output import receipts
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import enlarge_array


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--scale", "0"), 2, ("scale 0",)),
        (("--scale", "-4"), 2, ("scale -4",)),
        (("--scale", "four"), 2, ("'four'", "5/2")),
        (("--scale", "3", "--tiers", "fsrcnn-x4"), 2, ("fsrcnn-x4", "not made for scale 3", "x4")),
        (("--tiers", "esrgan"), 2, ("'esrgan'", "bicubic")),
        (("--tiers", "carn-x4,bicubic"), 2, ("light to full",)),
        (("--tiers", "bicubic,bicubic"), 2, ("twice",)),
        (("--tiers", "file:/nowhere/x.safetensors"), 2, ("/nowhere/x.safetensors",)),
        (("--budget", "1.5"), 2, ("1.5",)),
        (
            ("--budget", "0.0001", "--tiers", "bicubic,fsrcnn-x4"),
            2,
            ("less than the first tier costs",),
        ),
        (("--policy", "threshold"), 2, ("needs a number",)),
        (("--policy", "luck"), 2, ("luck",)),
        (("--tile", "4"), 2, ("tile of 4",)),
        (("--blend", "-1"), 2, ("blend of -1",)),
        (("--range", "5,1"), 2, ("range",)),
        (("--region", "0,0,60,10"), 2, ("region", "50x40")),
        (("--region", "0,0"), 2, ("region",)),
        (("--max-memory", "100M"), 2, ("GiB", "--max-memory")),
        (("--max-memory", "lots"), 2, ("'lots'",)),
        (("--device", "cuda"), 2, ("CUDA",)),
        (("--policy", "full", "--budget", "0.5"), 2, ("budget belongs", "ignored by full")),
        (("--budget", "0.5", "--threshold", "0.1"), 2, ("threshold belongs", "ignored by budget")),
        (("--no-such-option",), 2, ("--no-such-option",)),
    ],
)
def test_arguments_that_cannot_be(capsys, image, tmp_path, options, code, words):
    check_refusal(
        tierscale(capsys, "upscale", image, tmp_path / "out.zarr", *FAST, *options), code, *words
    )
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
    check_refusal(
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
    assert (plan.value_range.low, plan.value_range.high) == (
        pixels[..., :3].min(),
        pixels[..., :3].max(),
    )
    out = zarr.open_array(str(tmp_path / "out.zarr/0"), mode="r")[:]
    assert out[:3].max() <= 4000 and (out[3] == 65535).all()


def test_values_that_no_network_takes_name_the_image_and_the_value(capsys, tmp_path):
    np.save(tmp_path / "i.npy", np.where(np.eye(20, dtype=bool), np.inf, 0.5).astype(np.float32))
    check_refusal(
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


def test_a_full_disk_is_one_sentence_and_what_is_done_stays(capsys, image, tmp_path, monkeypatch):
    """With delayed allocation a disk is found to be full when a shard is synced."""
    calls, real = [], os.fsync

    def failing(descriptor):
        calls.extend([1] if "/c/0/" in os.readlink(f"/proc/self/fd/{descriptor}") else [])
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    command = ("upscale", image, tmp_path / "out.zarr", *FAST, "--tile", "8")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        check_refusal(tierscale(capsys, *command), 1, "full", "same command again")
    assert not list(tmp_path.rglob("*.tmp"))
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
        check_refusal(
            tierscale(capsys, "upscale", image, target / "out.zarr", *FAST), 1, "cannot be written"
        )
        return
    try:
        check_refusal(
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
