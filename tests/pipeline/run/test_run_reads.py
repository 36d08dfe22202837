"""What a run reads: a source is opened twice and digested once, each receipt is parsed once."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.pipeline.run.upscaling import upscale
from tierscale.pipeline.formats import fingerprint
from tierscale.pipeline.output import receipts
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run import draft, inspect
from tierscale.pipeline.run.workers import prescan_tasks, worker

OPTIONS = Options(tiers=("bicubic",), tile=32)
# Whatever opens images in a run.
OPENERS = (draft, inspect, worker, prescan_tasks)


@pytest.fixture
def source(tmp_path):
    """A plain PNG, which cannot be read by windows: it is ingested."""
    # No noise, of which no enlargement is faithful: shards would be made a second time.
    pixels = np.random.default_rng(0).integers(0, 255, (30, 31, 3), np.uint8)
    Image.fromarray(pixels).resize((310, 300)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def reads(monkeypatch):
    """How often each file was opened as an image, each was digested, each receipt was parsed."""
    opened, digested, parsed = Counter(), Counter(), Counter()

    def count(owner, name, counter, key):
        real = getattr(owner, name)

        def counted(*arguments, **more):
            counter[key(arguments[0])] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, counted)

    for module in OPENERS:
        count(module, "open_image", opened, str)
    count(fingerprint, "content_digest", digested, str)
    count(
        receipts,
        "parse",
        parsed,
        lambda text: tuple(json.loads(text)[n] for n in ["level", "y", "x"]),
    )
    return opened, digested, parsed


def test_a_png_is_opened_twice_and_digested_once_and_receipts_are_parsed_once(
    source, tmp_path, reads
):
    opened, digested, parsed = reads
    first = upscale(source, tmp_path / "out.zarr", OPTIONS)
    copy = str(tmp_path / "out.zarr.tierscale/source.zarr")
    assert opened == {str(source): 2, copy: 1}, "to plan and to ingest; then the copy is read"
    assert digested == {str(source): 1}
    # Each level is made of the one before, whose receipts tell whether its shards are right; the
    # last one is read back at the end.
    levels = Counter(level for level, _, _ in parsed)
    assert set(parsed.values()) == {1} and levels == {0: 4, 1: 1} and first.shards == 5


def test_a_second_run_parses_each_receipt_once_and_ingests_nothing(source, tmp_path, reads):
    opened, digested, parsed = reads
    first = upscale(source, tmp_path / "out.zarr", OPTIONS)
    for counter in reads:
        counter.clear()
    again = upscale(source, tmp_path / "out.zarr", OPTIONS)
    assert again.written == 0 and opened == {str(source): 1} and digested == {}
    assert len(parsed) == first.shards and set(parsed.values()) == {1}


def test_a_run_that_goes_on_ingests_anew_and_reads_the_receipts_that_are_there_once(
    source, tmp_path, reads
):
    opened, _, parsed = reads
    first = upscale(source, tmp_path / "out.zarr", OPTIONS)
    (tmp_path / "out.zarr.tierscale/receipts/0/1.1.json").write_text("{torn")
    for counter in reads:
        counter.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(receipts, "parse", tolerant(receipts.parse))
        again = upscale(source, tmp_path / "out.zarr", OPTIONS)
    assert again.written == 1 and again.done_before == first.shards - 1
    assert opened[str(source)] == 2
    assert set(parsed.values()) == {1}


def tolerant(parse):
    """The counting parser does not know what a torn receipt is of."""
    return lambda content, plan: None if content == b"{torn" else parse(content, plan)


RUN = """
import sys
from tests.memory import peak
from tests.pipeline.run.upscaling import upscale
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full

options = Options(tiers=("bicubic", "fsrcnn-x4"), policy=Full(), tile=4096)
summary = upscale(sys.argv[1], sys.argv[2], options, max_memory=4 << 30)
assert summary.shape == (3, 812, 628), summary.shape
print(peak())
"""


def test_a_tile_larger_than_the_image_takes_the_memory_of_the_image(tmp_path):
    """Planned and real: 4 GiB are not refused, and much less is taken."""
    pixels = np.random.default_rng(0).integers(0, 255, (203, 157, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "a.png"), str(tmp_path / "out.zarr")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5 * 2**30
