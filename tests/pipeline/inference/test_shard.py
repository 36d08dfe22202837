"""One shard: out of memory, flat ends, alpha, no data; and that a shard alone is the shard in its
image.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import zarr

from tests.fakes import Smear
from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.pipeline.inference import shard as heart
from tierscale.pipeline.output import store
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import enlarge_array, upscale_array
from tierscale.pipeline.run.workers.worker import Worker


@pytest.fixture
def smear(monkeypatch):
    """Tiers "bicubic" and "smear"; the fixture's value may be replaced by another Smear."""
    known = {"bicubic": Bicubic(), "smear": Smear()}
    monkeypatch.setattr(models, "load", lambda name, device="cpu": known[name])
    monkeypatch.setattr(models, "digest", lambda name: name)
    monkeypatch.setattr(models, "load_scout", lambda tiers, scale: None)
    return known


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(1, 255, shape).astype(dtype)


def test_out_of_memory_halves_batches_then_windows_and_is_remembered(smear):
    image = noise(3, 150, 170)
    options = Options(tiers=("smear",), policy="dearest", tile=48)
    whole = enlarge_array(image, options).pixels
    smear["smear"] = Smear(most=4000)
    small = enlarge_array(image, options).pixels
    assert np.abs(whole.astype(int) - small).max() <= 1
    smear["smear"] = Smear(most=400)
    with pytest.raises(torch.OutOfMemoryError, match="does not fit"):
        enlarge_array(image, options)


def test_the_smaller_batch_is_remembered_for_the_device(smear):
    image = noise(3, 200, 200)
    plan = replace(
        enlarge_array(
            image, Options(tiers=("bicubic", "smear"), policy="budget", budget=0.6, tile=48)
        ).plan,
        batch=(4, 4),
    )
    smear["smear"] = Smear(most=2 * 80 * 80)
    device = heart.Device("cpu")
    read = lambda y0, y1, x0, x1: image[:, y0:y1, x0:x1]  # noqa: E731
    works = plan.works((0, 0))
    pieces = heart.enlarge(
        plan,
        heart.read_input(plan, read, (0, 0), works),
        works,
        {0: smear["bicubic"], 1: smear["smear"]},
        device,
    )
    assert device.batches.get("smear", 4) < 4
    assert {piece.batch for piece in pieces if piece.work.tier == 0} == {4}


@pytest.mark.parametrize(
    ("most", "batch", "retreats"), [(None, 4, ()), (10_000, 2, ("smear",)), (4000, 0, ("smear",))]
)
def test_a_receipt_says_where_memory_ran_out(smear, tmp_path, one_thread, most, batch, retreats):
    pixels = noise(3, 100, 200)
    plan = enlarge_array(
        pixels, Options(tiers=("bicubic", "smear"), policy="budget", budget=0.8, tile=48)
    ).plan
    zarr.create_array(str(tmp_path / "in.zarr"), data=pixels, chunks=(3, 64, 64))
    plan = replace(plan, batch=(4, 4), source={**plan.source, "uri": str(tmp_path / "in.zarr")})
    store.create(
        str(tmp_path / "out.zarr"), StoreLayout.of(plan), {"tierscale": {"plan": plan.digest}}
    )
    smear["smear"] = Smear(most=most)
    folder = Folder(str(tmp_path / "out.zarr"))
    made = Worker("cpu", 1).finish(plan, folder.output, (0, 0))
    assert min(made.tiles.values()) > 0, "the test needs tiles of both tiers"
    assert (made.batch, made.retreats) == (batch, retreats)
    assert list(folder.receipts(plan.digest)) == [made]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.float32, 1.5)])
def test_flat_black_and_white_come_out_exactly(smear, dtype, top):
    smear["smear"] = Smear(offset=0.01)
    image = (noise(1, 96, 96) / 255 * top * 0.8 + 0.1 * top).astype(dtype)
    image[:, 20:50, 20:50], image[:, 60:90, 60:90] = 0, top
    out = upscale_array(image, 4, tiers=["smear"], policy="dearest", tile=32)
    assert (out[:, 4 * 22 : 4 * 48, 4 * 22 : 4 * 48] == 0).all()
    assert (out[:, 4 * 62 : 4 * 88, 4 * 62 : 4 * 88] == dtype(top)).all()
    flat = upscale_array(
        np.full((1, 40, 40), top, dtype), 4, tiers=["smear"], policy="dearest", tile=32
    )
    assert (flat == dtype(top)).all()


def test_alpha_is_bicubic_and_tiles_leave_no_mark_in_it(smear):
    image = noise(4, 100, 90)
    out = upscale_array(image, 4, tiers=["smear"], policy="dearest", tile=32)
    window = torch.from_numpy(image[None, 3:].astype(np.float32) / 255)
    wanted = Bicubic()(window, Placement.whole((100, 90), Fraction(4))).pixels[0, 0].numpy()
    wanted = np.clip(np.rint(wanted * 255), 0, 255)
    assert np.abs(out[3] - wanted).max() <= 1


def test_pixels_without_data_stay_without_and_spoil_nothing(smear):
    image = noise(1, 80, 80).astype(np.float32)
    holed = image.copy()
    holed[:, 30:40, 30:40] = -9999
    options = Options(tiers=("smear",), policy="dearest", tile=32, nodata=-9999)
    out = enlarge_array(holed, options).pixels
    assert (out[:, 120:160, 120:160] == -9999).all()
    assert out[:, :100].min() > -50 and (out == -9999).sum() == 1600


@pytest.mark.parametrize("axes", ["cyx", "yxc", "yx"])
def test_axes_come_back_as_they_were(smear, axes):
    image = noise(*{"cyx": (3, 40, 50), "yxc": (40, 50, 3), "yx": (40, 50)}[axes])
    out = upscale_array(image, 2, tiers=["smear"], axes=axes)
    assert (
        out.shape == {"cyx": (3, 80, 100), "yxc": (80, 100, 3), "yx": (80, 100)}[axes]
        and out.dtype == np.uint8
    )
