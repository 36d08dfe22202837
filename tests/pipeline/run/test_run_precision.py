"""Runs in bfloat16: what is frozen, what stays as in float32, and where a run goes on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import zarr
from PIL import Image

from tests.pipeline.run.upscaling import plan_at, upscale
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.workers import processor

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = Options(tiers=("bicubic", "fsrcnn-x4", "edsr-x4"), tile=16, policy="adaptive")


@pytest.fixture
def machine(monkeypatch):
    """Lets this machine be one with some kinds of bfloat16."""

    def become(*flags):
        monkeypatch.delenv(processor.LIMIT, raising=False)
        monkeypatch.setattr(processor, "_cpuinfo", lambda: f"flags : {' '.join(flags)}\n")

    return become


@pytest.fixture
def source(tmp_path):
    Image.fromarray(skimage.data.astronaut()[100:180, 180:276]).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def half_done(output):
    """Take a shard of a finished output away."""
    shutil.rmtree(f"{output}.tierscale/receipts/1", ignore_errors=True)
    next(Path(f"{output}.tierscale/receipts/0").iterdir()).unlink()


def pixels(output):
    return zarr.open_array(f"{output}/0", mode="r")[:]


def test_a_run_in_bfloat16_has_the_routes_of_float32_and_nearly_its_pixels(
    machine, source, tmp_path
):
    machine("avx512_bf16")
    summary = upscale(source, tmp_path / "bf16.zarr", OPTIONS)
    upscale(source, tmp_path / "fp32.zarr", OPTIONS.altered(precision="fp32"))
    one, other = plan_at(tmp_path / "bf16.zarr"), plan_at(tmp_path / "fp32.zarr")
    assert (one.precision, other.precision) == ("avx512_bf16", "fp32")
    assert summary.precision == summary.to_json()["precision"] == "avx512_bf16"
    assert len(set(one.routes.ravel())) > 1
    np.testing.assert_array_equal(one.routes, other.routes)
    assert one.settings == other.settings and one.audit == other.audit
    for plan, name in ((one, "bf16"), (other, "fp32")):
        receipts = list(Folder(str(tmp_path / f"{name}.zarr")).receipts(plan.digest))
        assert {receipt.precision for receipt in receipts} == {plan.precision}
    apart = np.abs(
        pixels(tmp_path / "bf16.zarr").astype(int) - pixels(tmp_path / "fp32.zarr").astype(int)
    )
    assert 0 < apart.max() <= 4 and (apart > 1).mean() <= 1e-4


def test_a_run_goes_on_only_where_there_is_its_kind(machine, source, tmp_path):
    machine("avx512_bf16", "amx_tile", "amx_bf16")
    output = tmp_path / "out.zarr"
    upscale(source, output, OPTIONS)
    first = pixels(output)
    half_done(output)
    for others in ((), ("avx512_bf16",)):
        machine(*others)
        with pytest.raises(Refused, match=r"begun in amx_bf16, .* that has amx_bf16, .*--overwr"):
            upscale(source, output, OPTIONS)
    with pytest.raises(Refused, match="precision amx_bf16, now fp32"):
        upscale(source, output, OPTIONS.altered(precision="fp32"))
    machine("avx512_bf16", "amx_tile", "amx_bf16")
    assert upscale(source, output, OPTIONS.altered(precision="bf16")).written > 0
    np.testing.assert_array_equal(pixels(output), first)
    machine()
    assert upscale(source, output, OPTIONS).written == 0  # all is there: nothing is computed
    assert upscale(source, output, OPTIONS, overwrite=True).precision == "fp32"


def test_float32_goes_on_as_float32_where_there_is_bfloat16(machine, source, tmp_path):
    machine()
    output = tmp_path / "out.zarr"
    upscale(source, output, OPTIONS)
    first = pixels(output)
    half_done(output)
    machine("avx512_bf16")
    summary = upscale(source, output, OPTIONS)
    assert summary.precision == "fp32" and summary.written > 0
    np.testing.assert_array_equal(pixels(output), first)


def test_what_has_no_bfloat16_is_planned_in_float32_or_named(machine, source, tmp_path):
    machine("avx512_bf16")
    plain = upscale(source, tmp_path / "a.zarr", Options(tiers="bicubic", precision="bf16"))
    assert plain.precision == "fp32"
    tiers = "bicubic,pcsr-fsrcnn-x4,edsr-x4"
    mixed = upscale(source, tmp_path / "b.zarr", Options(tiers=tiers, policy="full"))
    assert mixed.precision == "avx512_bf16"
    assert any("pcsr-fsrcnn-x4 computed in float32" in note for note in mixed.notes)


def test_arrays_and_files_agree(machine, source, tmp_path):
    machine("avx512_bf16")
    upscale(source, tmp_path / "out.zarr", OPTIONS)
    array = np.asarray(Image.open(source))
    keywords = {"tiers": OPTIONS.tiers, "tile": 16, "policy": "adaptive", "axes": "yxc"}
    made = upscale_array(array, 4, **keywords)
    np.testing.assert_array_equal(made.transpose(2, 0, 1), pixels(tmp_path / "out.zarr"))
    exact = upscale_array(array, 4, precision="fp32", **keywords)
    assert (made != exact).any()
