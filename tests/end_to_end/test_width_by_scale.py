"""AnySR as NAME@auto: its paper's width for the scale, found once and frozen in the plan."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.models.adaptive.anysr.test_upscaler import ENCODERS, HEADS, MEAN, make
from tests.models.adaptive.pcsr.small_pcsr import smooth
from tests.pipeline.run.upscaling import plan_at, upscale
from tierscale.models import registry
from tierscale.models.adaptive.anysr import upscaler as anysr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, write_checkpoint
from tierscale.models.contract.upscaler import EffortByScale
from tierscale.models.train.measure import quality
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.explain import explain, to_lines
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.plan.tiers import AT_PAPERS_WIDTH, default_tiers
from tierscale.pipeline.run.tiers import load_tiers, same_tiers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A small AnySR, stored as a file."""
    network, _ = make(head="liif")
    arguments = {
        "encoder": "edsr",
        "encoder_arguments": ENCODERS["edsr"],
        "head": "liif",
        "head_arguments": HEADS["liif"],
    }
    spec = ModelSpec("anysr", 0, arguments, MEAN, "bilinear")
    write_checkpoint(tmp_path / "any.safetensors", Checkpoint(spec, network.state_dict()))
    return f"file:{tmp_path / 'any.safetensors'}"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = (smooth(1, 30, 40)[0].numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def options(label: str, scale: str = "3/2") -> Options:
    return Options(scale=Fraction(scale), tiers=("bicubic", label), policy=Full(), tile=24)


def pixels(output: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(f"{output}/0", mode="r")[:])


@pytest.mark.parametrize(("scale", "width"), [("3/2", 0.5), ("5/2", 0.7), ("3", 0.9), ("4", 1.0)])
def test_a_run_has_the_width_of_its_scale_in_plan_receipts_and_explanation(
    name: str, photo: Path, tmp_path: Path, scale: str, width: float
) -> None:
    output = tmp_path / "auto.zarr"
    summary = upscale(photo, output, options(f"{name}@auto", scale))
    plan, upscaler = plan_at(output), registry.load(name)
    assert plan.settings == ({}, {"width": width}) and plan.statistics is None
    effort = plan.tiers[1].effort
    assert plan.tiers[1].cost == upscaler.cost(Fraction(scale), effort)
    receipts = [one for one in Folder(str(output)).receipts(plan.digest) if one.level == 0]
    assert receipts
    assert all(one.settings == {f"{name}@auto": {"width": width}} for one in receipts)
    told = f"{name}@auto runs at width {width:g}, its paper's for scale {scale}"
    assert told in summary.notes
    explained = explain(str(output))
    assert explained.tiers[1].settings == {"width": width}
    assert f"  {name}@auto: width {width:g}" in to_lines(explained)
    label = name if effort == 1 else f"{name}@{effort:.17g}"
    by_effort = upscale(photo, tmp_path / "effort.zarr", options(label, scale))
    assert by_effort.cost == summary.cost
    np.testing.assert_array_equal(pixels(output), pixels(tmp_path / "effort.zarr"))
    if width < 1:
        full = upscale(photo, tmp_path / "full.zarr", options(name, scale))
        assert summary.cost < full.cost
        assert (pixels(output) != pixels(tmp_path / "full.zarr")).any()


def test_what_was_begun_keeps_its_width(
    name: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "begun.zarr"
    upscale(photo, output, options(f"{name}@auto"))
    before = pixels(output)
    receipt = next((Path(f"{output}.tierscale") / "receipts/0").iterdir())
    receipt.unlink()
    # A later version, whose table says otherwise.
    monkeypatch.setattr(anysr, "width_by_scale", lambda encoder, scale: 0.9)
    (fresh,) = load_tiers((f"{name}@auto",), Fraction(3, 2))
    begun = plan_at(output).tiers
    assert fresh.effort > begun[1].effort
    assert same_tiers(begun, options(f"{name}@auto")) and not same_tiers(begun, options(name))
    summary = upscale(photo, output, options(f"{name}@auto"))
    assert (summary.written, summary.status) == (1, "done")
    assert plan_at(output).settings == ({}, {"width": 0.5})
    np.testing.assert_array_equal(pixels(output), before)
    with pytest.raises(Refused, match="tiers"):
        upscale(photo, output, options(name))
    upscale(photo, output, options(f"{name}@auto"), overwrite=True)
    assert plan_at(output).settings == ({}, {"width": 0.9})


def test_a_listing_tells_what_it_costs_at_each_scale() -> None:
    names = ("edsr-x4", "pcsr-carn-x4", "anysr-edsr")
    rows = {name: registry.facts(name)["auto"] for name in names}
    assert rows["edsr-x4"] is None and rows["pcsr-carn-x4"] is None
    by_scale = rows["anysr-edsr"]
    assert [by_scale[scale]["width"] for scale in ("3/2", "2", "5/2", "3", "4")] == [
        *(0.5, 0.7, 0.7, 0.9, 1.0)
    ]
    upscaler = registry.load("anysr-edsr")
    assert by_scale["3/2"]["cost_per_pixel"] < upscaler.cost(Fraction(3, 2))
    assert by_scale["4"]["cost_per_pixel"] == upscaler.cost(Fraction(4))


def test_turned_it_has_no_automatic_effort(name: str) -> None:
    with pytest.raises(Refused, match=r"has no automatic effort.*without @auto"):
        load_tiers(("bicubic", f"{name}+2@auto"), Fraction(2))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [min(AT_PAPERS_WIDTH), max(AT_PAPERS_WIDTH)])
@pytest.mark.parametrize("folder", ["Set14", "Urban100"])
def test_where_it_is_the_default_it_loses_little(
    folder: str, scale: Fraction, shared: Path
) -> None:
    assert default_tiers(scale)[-1] == "anysr-edsr@auto"
    upscaler = registry.load("anysr-edsr")
    assert isinstance(upscaler, EffortByScale)
    photos = shared / "data" / "eval" / folder
    full, auto = (
        quality(upscaler, photos, scale, effort)["papers"]
        for effort in (1.0, upscaler.effort_by_scale(scale))
    )
    assert auto.cost < 0.95 * full.cost
    assert full.psnr - auto.psnr <= 0.05
