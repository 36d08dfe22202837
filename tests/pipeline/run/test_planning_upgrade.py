"""A later version: other defaults, newer weights, other bytes. It goes on with what was begun."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.commands import tierscale
from tests.models.test_weights import trained
from tests.pipeline.run.upscaling import plan_at, upscale
from tests.versions import TIERS, become_later, newer_weights
from tierscale.models import weights
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan import plan as plans
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run import planning, resources
from tierscale.pipeline.run.workers.pool import LocalPool

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = ("bicubic", "fsrcnn-x4")
BEGUN = Options(tiers=NETWORKS, tile=8, policy="adaptive")


@pytest.fixture
def source(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 264, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def done(source, tmp_path):
    """A finished output, begun with options that no version has by default."""
    upscale(source, tmp_path / "done.zarr", BEGUN)
    return tmp_path / "done.zarr"


@pytest.fixture
def half(done, tmp_path):
    """The same output, half done."""
    output = tmp_path / "half.zarr"
    shutil.copytree(done, output)
    shutil.copytree(f"{done}.tierscale", f"{output}.tierscale")
    folder = Path(f"{output}.tierscale/receipts")
    shutil.rmtree(folder / "1")
    (folder / "0/0.1.json").unlink()
    (output / "0/c/0/0/1").unlink()
    return output


@pytest.fixture
def later(monkeypatch):
    """A version with other defaults."""
    become_later(monkeypatch)


@pytest.fixture
def newer(tmp_path, monkeypatch):
    """A zoo in which fsrcnn-x4 stands for weights that were trained on; what it stood for."""
    before = weights.newest("fsrcnn-x4")
    newer_weights(monkeypatch, tmp_path / "zoo")
    return before


def pixels(output, level=0):
    return zarr.open_array(f"{output}/{level}", mode="r")[:]


def times(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def versions(output):
    """The bytes_version in the receipts of an output, by shard."""
    files = Path(f"{output}.tierscale/receipts").glob("*/*.json")
    return {
        f"{file.parent.name}/{file.stem}": json.loads(file.read_text())["bytes_version"]
        for file in files
    }


def test_a_finished_output_is_skipped_by_a_later_version(source, done, later, newer):
    before = times(done)
    found = upscale(source, done, Options())
    assert (found.written, found.done_before) == (0, found.shards) and times(done) == before
    assert any("tiers bicubic fsrcnn-x4 (by default bicubic edsr-x4)" in n for n in found.notes)
    assert any(f"fsrcnn-x4 ({newer[:8]})" in note for note in found.notes)


def test_a_half_done_output_becomes_what_the_earlier_version_had_made(
    source, done, half, later, newer
):
    kept = times(half / "0")
    found = upscale(source, half, Options())
    assert found.written == 4 and found.done_before == found.shards - 4
    assert kept.items() <= times(half / "0").items(), "shards that were there stay"
    for level in (0, 1):
        np.testing.assert_array_equal(pixels(half, level), pixels(done, level))
    assert plan_at(half).tiers[1].weights == newer != weights.newest("fsrcnn-x4")
    # The names of networks may be written too: they stood for those weights then.
    again = upscale(source, half, Options(tiers=NETWORKS))
    assert again.written == 0


def test_a_damaged_shard_is_healed_with_the_weights_of_its_time(capsys, done, newer):
    before, shard = pixels(done), done / "0/c/0/0/0"
    shard.write_bytes(bytes(shard.stat().st_size))
    code, out, err = tierscale(capsys, "verify", done, "--heal", "--json")
    assert code == 0 and json.loads(out)["healed"] == 1, err
    np.testing.assert_array_equal(pixels(done), before)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({"tile": 128}, r"tile 8, now 128"),
        ({"scale": 2}, r"scale 4, now 2"),
        ({"policy": Full()}, r"policy adaptive, now full"),
        ({"tiers": ("bicubic", "edsr-x4")}, r"tiers .*fsrcnn-x4.*, now .*edsr-x4"),
        ({"region": (0, 0, 16, 16)}, "region"),
        ({"value_range": (0, 200)}, "range"),
    ],
)
def test_a_written_option_that_differs_is_refused(source, done, half, later, written, text):
    for output in (done, half):
        before = times(output)
        with pytest.raises(Refused, match=rf"another plan \(.*{text}"):
            upscale(source, output, Options(**{"tiers": NETWORKS, **written}))
        assert times(output) == before


def test_overwrite_begins_anew_with_this_versions_own(source, done, later, newer):
    found = upscale(source, done, Options(tiers=NETWORKS, tile=8), overwrite=True)
    assert found.written == found.shards
    assert plan_at(done).tiers[1].weights == weights.newest("fsrcnn-x4") != newer
    again = upscale(source, done, Options(tiers=NETWORKS, tile=8), overwrite=True)
    assert again.written == 0, "it is what would be made now"
    assert tuple(upscale(source, done, Options(), overwrite=True).tiles) == TIERS


def test_an_output_that_is_known_goes_on_and_is_replaced_for_other_wishes(source, half, later):
    assert upscale(source, half, Options(), known=True).written == 4
    found = upscale(source, half, Options(tile=16), known=True)
    assert found.written == found.shards and plan_at(half).tile == 16


def test_weights_that_are_nowhere_are_refused_only_where_they_are_needed(
    source, done, half, monkeypatch, tmp_path
):
    """As where an older version meets the output of a newer one."""
    shutil.copytree(weights.ZOO, tmp_path / "zoo")
    monkeypatch.setattr(weights, "ZOO", tmp_path / "zoo")
    weights.weights_path("fsrcnn-x4", weights.newest("fsrcnn-x4")).unlink()
    weights.ship("fsrcnn-x4", trained(tmp_path))
    assert upscale(source, done, Options()).written == 0
    before = times(half)
    with pytest.raises(Refused, match=r"begun by tierscale .* with the weights 4026da394e15 of fs"):
        upscale(source, half, Options())
    assert times(half) == before


def test_a_finished_output_needs_neither_the_device_nor_the_memory_of_its_time(
    source, done, half, monkeypatch
):
    monkeypatch.setattr(resources, "WORKER_BYTES", 1 << 50)
    assert upscale(source, done, Options(), max_memory=1 << 30).written == 0
    with pytest.raises(Refused, match="may be used"):
        upscale(source, half, Options(), max_memory=1 << 30)
    monkeypatch.undo()
    with LocalPool(1) as pool:
        pool.device = "cuda"
        for output, refused in ((done, False), (half, True)):
            job = planning.ImageJob(str(source), str(output), Options())
            planner = planning.Planner(job, pool, planning.Controls(), planning.Timings())
            inspection = planner.inspect()
            if refused:
                with pytest.raises(Refused, match=r"begun on cpu .* give --device cpu"):
                    planner.plan(inspection)
            else:
                planner.plan(inspection)


def test_a_file_that_is_read_otherwise_by_now_strands_no_finished_output(source, done, half):
    """A version may come to know that these channels are no colours."""
    for output in (done, half):
        file = Path(f"{output}.tierscale/plan.json")
        plan = replace(plan_at(output), colour="channels")
        rewrite(output, file, plan)
    assert upscale(source, done, Options()).written == 0
    with pytest.raises(Refused, match="colour channels, now rgb"):
        upscale(source, half, Options())


def rewrite(output, file, plan):
    """Make an output that of a changed plan: its digest stands in all that belongs to it."""
    from tierscale.pipeline.plan.stored import plan_to_json, with_digest

    before, plan = plan_at(output).digest, with_digest(plan)
    file.write_text(json.dumps(plan_to_json(plan)))
    for path in (Path(output) / "zarr.json", *Path(f"{output}.tierscale").rglob("receipts/*/*")):
        path.write_text(path.read_text().replace(before, plan.digest))


def test_another_bytes_version_goes_on_with_a_note_and_receipts_tell(
    source, done, half, monkeypatch
):
    before = plans.BYTES_VERSION
    assert set(versions(done).values()) == {before}
    monkeypatch.setattr(plans, "BYTES_VERSION", plans.BYTES_VERSION + 1)
    found = upscale(source, done, Options())
    assert found.written == 0
    assert any("nothing was written again" in note for note in found.notes)
    found = upscale(source, half, BEGUN)
    assert found.written == 4 and any(
        f"goes on with {plans.BYTES_VERSION}" in note for note in found.notes
    )
    changed = {key for key, number in versions(half).items() if number == plans.BYTES_VERSION}
    assert changed == {"0/0.1", "1/0.0", "1/0.1", "1/0.2"} and plan_at(half).bytes_version == before
    made = {receipt.key: receipt.bytes_version for receipt in receipts(half)}
    assert made[0, 0, 1] == plans.BYTES_VERSION and made[0, 0, 0] == before


def test_levels_that_are_left_are_made_of_what_is_written(source, done, monkeypatch, tmp_path):
    """They need no network, and are told of as what is written now."""
    shutil.copytree(weights.ZOO, tmp_path / "zoo")
    monkeypatch.setattr(weights, "ZOO", tmp_path / "zoo")
    weights.weights_path("fsrcnn-x4", weights.newest("fsrcnn-x4")).unlink()
    before = pixels(done, 1)
    shutil.rmtree(f"{done}.tierscale/receipts/1")
    monkeypatch.setattr(plans, "BYTES_VERSION", plans.BYTES_VERSION + 1)
    found = upscale(source, done, Options())
    assert found.written == 3 and any("goes on with" in note for note in found.notes)
    np.testing.assert_array_equal(pixels(done, 1), before)


def receipts(output):
    return Folder(str(output)).receipts(plan_at(output).digest)


def test_healing_with_another_bytes_version_says_so(capsys, done, monkeypatch):
    """Other bytes are right then; without another number they are a shard that is not healed."""
    from tierscale.pipeline.run.workers import shard_tasks

    real, now = shard_tasks.finish_shard, plans.BYTES_VERSION
    for number, flip, code in ((now, 1, 1), (now + 1, 0, 0)):
        changed = partial(lambda flip, *given: real(*given) ^ flip, flip)
        monkeypatch.setattr(shard_tasks, "finish_shard", changed)
        monkeypatch.setattr(plans, "BYTES_VERSION", number)
        shard = done / "0/c/0/0/0"
        shard.write_bytes(bytes(shard.stat().st_size))
        found = tierscale(capsys, "verify", done, "--heal", "--json")
        assert found[0] == code, found
        assert ("another bytes_version" in found[2]) == (code == 0)


def test_a_value_of_missing_pixels_that_is_not_written_is_kept_and_told(source, tmp_path):
    output = tmp_path / "out.zarr"
    upscale(source, output, BEGUN.altered(nodata=0.0))
    found = upscale(source, output, Options())
    assert found.written == 0 and "the no-data value is 0.0, as the output was begun" in found.notes
    with pytest.raises(Refused, match=r"nodata 0.0, now nodata 7.0"):
        upscale(source, output, Options(nodata=7.0))
