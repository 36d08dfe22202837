"""Workers that make other pixels than they should: found by fidelity, outvoted, ended."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
import zarr
from PIL import Image

from tests.commands import tierscale
from tests.pipeline.run.upscaling import upscale
from tests.plans import draft_of, plan_of
from tierscale.models import weights
from tierscale.models.fidelity import Bound
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.inference.enlarge import Engine
from tierscale.pipeline.inference.fidelity import FidelityRule
from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.shards import opinions
from tierscale.pipeline.run.shards.opinions import (
    UNMEASURED,
    Attempt,
    Opinions,
    block_of,
    bound_of_tier,
)
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.worker import Worker

OPTIONS = Options(tiers=("bicubic", "fsrcnn-x4"), policy=Full(), tile=24)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "stars.tif"
    Image.fromarray(skimage.data.hubble_deep_field()[100:388, 200:500]).save(path)
    return path


@pytest.fixture(scope="module")
def sound(source, tmp_path_factory):
    """The array of a run of sound workers."""
    output = tmp_path_factory.mktemp("sound") / "out.zarr"
    assert upscale(source, output, OPTIONS).notes == ()
    return pixels(output)


def pixels(output):
    return zarr.open_array(f"{output}/0", mode="r")[:]


def black(pixels):
    return np.zeros_like(pixels)


def shifted(pixels):
    return np.roll(pixels, 2, axis=-1)


def swapped(pixels):
    return np.ascontiguousarray(pixels[::-1])


class Sick(Worker):
    """A worker whose card makes something else of every window from some shard on."""

    def __init__(self, device, fault, after=0):
        super().__init__(device)
        self.fault, self.after = fault, after

    def engine(self, draft, settings, tiers):
        self.after -= 1
        engine = super().engine(draft, settings, tiers)
        return engine if self.after >= 0 else Faulty(engine, self.fault)


class Faulty(Engine):
    """An engine whose results are spoilt."""

    def __init__(self, engine, fault):
        super().__init__(engine.draft, engine.upscalers, engine.settings, engine.device)
        object.__setattr__(self, "fault", fault)

    def run(self, windows, places, tier, batch):
        made = super().run(windows, places, tier, batch)
        return [(self.fault(pixels), macs) for pixels, macs in made]


def hiring(*kinds):
    """What hires workers: those of some kinds first, sound ones after."""
    waiting, hired = list(kinds), []

    def hire(device):
        hired.append(waiting.pop(0)(device) if waiting else Worker(device))
        return hired[-1]

    return hire, hired


def run(source, output, workers, *kinds, options=OPTIONS):
    hire, hired = hiring(*kinds)
    with LocalPool(workers, make_worker=hire) as pool:
        return upscale_image(ImageJob(str(source), str(output), options), pool), hired


@pytest.mark.parametrize("fault", [black, shifted, swapped])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sick_worker_is_outvoted_and_ended_and_leaves_no_mark(
    source, sound, tmp_path, fault, workers
):
    output = tmp_path / "out.zarr"
    summary, hired = run(source, output, workers, lambda device: Sick(device, fault))
    np.testing.assert_array_equal(pixels(output), sound)
    ended = [note for note in summary.notes if "was ended" in note]
    assert len(ended) == 1 and f"worker {hired[0].name} was ended: of shard" in ended[0]
    made = {worker for one in Folder(str(output)).receipts(summary.plan) for worker in one.workers}
    assert hired[0].name not in made
    assert (summary.status, summary.written, summary.done_before) == ("done", summary.shards, 0)


def test_what_a_worker_made_before_it_was_found_out_is_made_once_more(source, sound, tmp_path):
    """Its faults are small at first: above the bound, and yet other bytes."""

    def slightly(pixels):
        return pixels + np.float32(0.004)

    class Sickening(Sick):
        def engine(self, draft, settings, tiers):
            self.fault = slightly if self.after > -2 else black
            return super().engine(draft, settings, tiers)

    output = tmp_path / "out.zarr"
    summary, hired = run(source, output, 1, lambda device: Sickening(device, slightly))
    assert any(hired[0].name in note for note in summary.notes)
    np.testing.assert_array_equal(pixels(output), sound)
    assert summary.written == summary.shards, "a shard counts once"


def test_where_no_two_agree_the_run_ends_and_says_where(source, tmp_path):
    def greyed(grey):
        return lambda device: Sick(device, lambda made: np.full_like(made, grey))

    output, (hire, _) = tmp_path / "out.zarr", hiring(*map(greyed, (0.1, 0.2, 0.3)))
    with LocalPool(1, make_worker=hire) as pool, pytest.raises(Damaged) as error:
        upscale_image(ImageJob(str(source), str(output), OPTIONS), pool)
    text = str(error.value)
    # Two shards are under way; which one is made first is not fixed.
    found = re.search(r"level 0 shard (0\.[01]) was made 3 times and no two results agree \(", text)
    assert found is not None and "(worst tile " in text
    assert " dB at " in text and "check these machines, then run the same command again" in text
    assert not list(Folder(str(output)).path.glob(f"receipts/0/{found[1]}.json"))
    assert upscale(source, output, OPTIONS).status == "done", "sound workers go on"


def test_patterns_that_networks_cannot_keep_are_a_note_and_cost_one_more_making(
    tmp_path, monkeypatch
):
    """A checkerboard of single pixels falls to a few dB; not every shard of it is made twice."""
    board = (np.indices((288, 288)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.tif")
    made = []
    first = Opinions.first
    monkeypatch.setattr(Opinions, "first", lambda self, key: made.append(key) or first(self, key))
    again = []
    real = Opinions.again

    def counting(self, receipt, attempt):
        another = real(self, receipt, attempt)
        again.extend([receipt.key] if another else [])
        return another

    monkeypatch.setattr(Opinions, "again", counting)
    summary = upscale(tmp_path / "board.tif", tmp_path / "out.zarr", OPTIONS)
    assert summary.status == "done" and summary.fidelity.decibels < 15
    assert len(summary.notes) == 1 and "so it is the networks' doing" in summary.notes[0]
    assert not any("ended" in note for note in summary.notes)
    # Two shards are under way when the first is found to be the network's doing.
    level_0 = [key for key in made if key[0] == 0]
    assert 1 <= len(again) <= 3 < len(level_0)


def test_a_doubted_shard_has_no_receipt_until_another_worker_agrees(source, tmp_path):
    """A run that is killed between the two makes it again."""
    output, seen = tmp_path / "out.zarr", []

    class Watched(Sick):
        def engine(self, draft, settings, tiers):
            seen.append(sorted(path.name for path in Folder(str(output)).path.glob("receipts/0/*")))
            return super().engine(draft, settings, tiers)

    run(
        source,
        output,
        1,
        lambda device: Watched(device, black),
        lambda device: Watched(device, black, 99),
    )
    assert seen[1] == [], "what the first one made is not done"


def test_the_figure_stands_in_receipt_table_summary_and_output(capsys, source, tmp_path):
    output = tmp_path / "out.zarr"
    command = ("upscale", source, output, "--tiers", "bicubic,fsrcnn-x4", "--policy", "full")
    code, text, _ = tierscale(capsys, *command, "--tile", "24", "--ray", "none")
    assert code == 0
    again = json.loads(tierscale(capsys, *command, "--tile", "24", "--ray", "none", "--json")[1])
    table = pq.read_table(f"{output}.tierscale/tiles.parquet")
    fidelity = table["fidelity"].to_numpy()
    assert table.schema.field("fidelity").type == "float" and not np.isnan(fidelity).any()
    worst = int(np.argmin(fidelity))
    y, x = (table[name].to_pylist()[worst] for name in ("y", "x"))
    assert again["fidelity"] == {
        "worst_db": pytest.approx(fidelity.min(), abs=0.01),
        "y": y,
        "x": x,
    }
    assert f"worst tile {fidelity.min():.1f} dB at {x}, {y}" in text
    receipts = list(Folder(str(output)).receipts(again["plan"]))
    assert min(one.fidelity for one in receipts if one.level == 0) == pytest.approx(fidelity.min())
    assert {one.fidelity for one in receipts if one.level > 0} == {None}
    assert sum(len(one.tile_fidelity) for one in receipts) == table.num_rows


LIGHT, FULL, STRANGE = (
    Tier(name, "0" * 64, 1.0, cost, 2, 40.0)
    for name, cost in (("bicubic", 240.0), ("edsr-x4", 2e5), ("file:strange.pth", 2e5))
)


def opinions_of(routes, tiers=(LIGHT, FULL), size=(96, 96), **more):
    draft = draft_of(size, tiers, tile=8, **more)
    return Opinions(plan_of(draft, np.array(routes)), None, "/out/a.zarr")


def test_a_mixed_shard_has_the_lowest_bound_of_the_tiers_that_show_in_it():
    low, high = (bound_of_tier(tier).decibels for tier in (LIGHT, FULL))
    assert low < high - 5
    routes = np.ones((12, 12), int)
    found = opinions_of(routes)
    assert found.first((0, 0, 0)) == Attempt(FidelityRule(high, 1, 1))
    routes[0, 0] = 0
    found = opinions_of(routes)
    assert found.first((0, 0, 0)).rule.bound == low
    assert found.first((0, 1, 1)).rule.bound == high
    # The tile beside the shard fades into it.
    routes[0, 0], rows = 1, found.plan.grid.shard_tiles[0]
    routes[rows, 0] = 0
    assert opinions_of(routes).first((0, 0, 0)).rule.bound == low
    assert found.first((1, 0, 0)) == Attempt(), "smaller levels have no source"


def test_of_what_nobody_measured_only_the_grossest_is_doubted():
    assert bound_of_tier(STRANGE) == UNMEASURED
    others = (bound_of_tier(replace(FULL, name=name)) for name in weights.names())
    assert UNMEASURED.decibels < min(bound.decibels for bound in others)
    found = opinions_of(np.eye(12, dtype=int), (LIGHT, STRANGE))
    assert found.first((0, 0, 0)).rule.bound == UNMEASURED.decibels


def test_a_card_beside_somebodys_weights_has_their_bound(tmp_path):
    path = tmp_path / "mine.safetensors"
    tier = replace(STRANGE, name=f"file:{path}")
    for text, wanted in (
        ('{"fidelity": {"bound": 31}}', Bound(31.0)),
        ('{"fidelity": {"bound": 31, "block": 8}}', Bound(31.0, 8)),
        ("no JSON", UNMEASURED),
        ("[]", UNMEASURED),
    ):
        path.with_suffix(".json").write_text(text)
        assert bound_of_tier(tier) == wanted


def test_turned_networks_have_the_bound_of_their_network():
    assert bound_of_tier(replace(FULL, name="edsr-x4+8")) == bound_of_tier(FULL) != UNMEASURED


@pytest.mark.parametrize("turned", ["", "+8"])
def test_a_mix_has_the_lower_bound_of_its_parts_and_averages_where_one_does(turned):
    clean, photo = (bound_of_tier(replace(FULL, name=one)) for one in ("edsr-x4", "edsr-x4-photo"))
    mix = bound_of_tier(replace(FULL, name=f"edsr-x4*0.3+edsr-x4-photo*0.7{turned}"))
    assert mix == Bound(min(clean.decibels, photo.decibels), 8) and photo.block == 8
    strange = replace(FULL, name="edsr-x4*0.3+file:strange.pth*0.7")
    assert bound_of_tier(strange) == UNMEASURED


def test_photo_networks_are_compared_by_averages():
    bounds = [bound_of_tier(LIGHT), bound_of_tier(FULL)]
    assert block_of(draft_of(), bounds) == 1
    assert block_of(draft_of(family="photo"), bounds) == 8
    assert block_of(draft_of(), [replace(bounds[0], block=8)]) == 8
    found = opinions_of(np.ones((12, 12), int), family="photo")
    assert found.first((0, 0, 0)).rule.block == 8


def test_every_network_of_the_zoo_has_a_bound_on_its_card():
    bounds = {name: bound_of_tier(replace(FULL, name=name)) for name in weights.names()}
    assert all(UNMEASURED.decibels < one.decibels < 50 for one in bounds.values()), bounds
    assert {name for name, one in bounds.items() if one.block == 8} == {
        name for name in bounds if weights.card(name).get("family") == "photo"
    }


def test_large_cheap_images_are_looked_at_in_samples():
    routes = np.zeros((128, 128), int)
    cheap, dear = (opinions_of(routes + tier, size=(1024, 1024)) for tier in (0, 1))
    assert cheap.first((0, 0, 0)).rule.every == opinions.ONE_IN > 1
    assert dear.first((0, 0, 0)).rule.every == 1
    assert opinions_of(np.zeros((12, 12), int)).first((0, 0, 0)).rule.every == 1


def receipt(sha, **more):
    known = {"fidelity": 20.0, "batch": 4, "workers": (sha,), "tile_fidelity": ((1, 2, 20.0),)}
    return Receipt("p", 0, 0, 0, (1, 8, 8), sha, 9, {}, 0.0, {}, "cpu", **{**known, **more})


class Ending:
    """A pool that notes whom it is told to end."""

    def __init__(self):
        self.ended = []

    def dismiss(self, worker):
        self.ended.append(worker)


def test_one_worker_alone_is_no_witness():
    """What it makes twice alike may be its own doing, and the note does not say otherwise."""
    for workers, words in ((("a", "b"), "so it is the networks' doing"), (("a", "a"), "check the")):
        found = Opinions(plan_of(draft_of()), Ending(), "/out/a.zarr")
        attempt = Attempt(FidelityRule(30.0))
        for worker in workers:
            attempt = found.again(receipt("a", workers=(worker,)), attempt)
        (note,) = found.notes()
        assert attempt is None and words in note and note.startswith("1 shard with more difference")


@pytest.mark.parametrize(
    ("shas", "ended"),
    [("aa", []), ("aba", ["b"]), ("abb", ["a"])],
)
def test_two_of_three_decide(shas, ended):
    pool = Ending()
    found = Opinions(plan_of(draft_of()), pool, "/out/a.zarr")
    attempt = Attempt(FidelityRule(30.0))
    for number, sha in enumerate(shas):
        assert attempt is not None and len(attempt.seen) == number
        assert attempt.others.strictly == (number == 2)
        last = receipt(sha, workers=(f"{sha}{number}",))
        attempt = found.again(last, attempt)
    assert attempt is None and [worker[0] for worker in pool.ended] == ended


def test_smaller_batches_are_no_reason_to_end_a_worker():
    """Where memory ran out, values differ by 1 of 255: it is enough to be as faithful."""
    pool = Ending()
    found = Opinions(plan_of(draft_of()), pool, "/out/a.zarr")
    attempt = found.again(receipt("a"), Attempt(FidelityRule(30.0)))
    near, far = ({"tile_fidelity": ((1, 2, one),), "fidelity": one} for one in (20.3, 9.0))
    small = receipt("b", batch=1, retreats=("full",), **near)
    assert found.again(small, attempt) is None and pool.ended == []
    assert found.again(receipt("b", batch=1, **far), attempt) is not None
    assert found.again(receipt("b", **near), attempt) is not None


def test_processors_that_round_differently_are_no_reason_to_end_a_worker():
    one = receipt("a", processors=("x",), tile_fidelity=((0, 0, 12.0), (0, 1, 40.0)))
    two = replace(one, pixels_sha256="b", processors=("y",))
    assert one.agrees(two) and not one.agrees(replace(two, processors=("x",)))
    assert not one.agrees(replace(two, tile_fidelity=((0, 0, 12.0), (0, 1, 41.0))))
    assert not one.agrees(replace(two, tile_fidelity=((0, 0, 12.0),)))
