"""What a night refuses before it begins, and what it does not write over."""

from fractions import Fraction

import pytest

from tests.jobs.nights import EVENING, night, numbers, options, picture, stamps
from tierscale.jobs.night_run import nightly
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import MaxLoss
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool

LOSS = MaxLoss(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"image": Options(scale=Fraction(3), tiers=("bicubic", "fsrcnn-x4"), policy=LOSS)},
            "x4",
        ),
        ({"max_memory": 1 << 20}, "--max-memory"),
        ({"max_memory": 2100 << 20, "workers": 3}, "lower --workers"),
        ({"ledger": "s3://AKIA:sEcReT@b/l.db"}, "holds a secret"),
        ({"source_roots": ("s3://AKIA:sEcReT@b/l",)}, "holds a secret"),
        ({"image": Options(tiers=("bicubic", "file:https://u:sEc,ReT@h/x"))}, "holds a secret"),
        ({"until": "24:00"}, "is not a time of day"),
        ({"image": Options(tiers=("nonesuch",))}, "nonesuch"),
        ({"output": "archive/out"}, "lies inside the archive"),
        ({"archive": "nowhere"}, "there is no folder"),
        ({"ledger": "nowhere/l.db"}, "no folder"),
        ({"output": "archive/a.png"}, "lies inside the archive"),
    ],
)
def test_what_would_fail_for_every_image_is_refused_before_any(archive, change, words):
    from dataclasses import replace

    paths = {
        name: (
            str(archive / value)
            if name in ("archive", "output", "ledger") and "://" not in value
            else value
        )
        for name, value in change.items()
    }
    with pytest.raises(Refused, match=words) as error:
        nightly(replace(options(archive), **paths), clock=lambda: EVENING)
    assert "sEcReT" not in str(error.value) and "ReT" not in str(error.value)
    assert not (archive / "ledger.db.reports").exists()
    assert (archive / "ledger.db").exists() == ("there is no folder" in words), (
        "only to find the archive missing is the ledger opened"
    )


def test_more_workers_than_the_memory_can_have_are_refused_before_any_image(archive, monkeypatch):
    """How many there are is known once they have started."""
    monkeypatch.setattr("tierscale.cluster.session.cores", lambda: 3)
    with pytest.raises(Refused, match="3 workers"):
        night(archive, workers=None, max_memory=1500 << 20)
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert [tuple(row) for row in ledger.do("SELECT state, attempts FROM sources")] == [
            ("pending", 0)
        ] * 2


def test_no_output_lands_in_the_archive(archive):
    """The archive lies in the output root, and a folder in it is called as the archive is."""
    (archive / "archive/archive").mkdir()
    picture(archive / "archive/archive/c.png", 40)
    (archive / "linked").symlink_to(archive / "archive")
    (archive / "archive/linked").mkdir()
    picture(archive / "archive/linked/d.png", 40)
    found = night(archive, output=".")
    assert (
        numbers(found) == {"new": 4, "done": 2, "failed": 2}
        and "lies inside the archive" in found["error"]
    )
    assert not list((archive / "archive").rglob("*.zarr*"))
    assert (archive / "a.png.zarr").exists()


def test_a_link_out_of_the_archive_is_followed_only_if_allowed(archive):
    (archive / "elsewhere").mkdir()
    picture(archive / "elsewhere/b.png", 20)
    (archive / "archive/linked.png").symlink_to(archive / "elsewhere/b.png")
    assert numbers(night(archive)) == {"new": 3, "done": 2, "failed": 1}
    assert numbers(night(archive, 1, source_roots=(str(archive / "elsewhere"),))) == {
        "untouched": 3,
        "done": 1,
    }


def test_what_others_made_is_not_replaced(archive):
    theirs = archive / "out/a.png.zarr"
    theirs.mkdir(parents=True)
    (theirs / "zarr.json").write_text("theirs")
    found = night(archive)
    assert (
        numbers(found) == {"new": 2, "done": 1, "failed": 1}
        and (theirs / "zarr.json").read_text() == "theirs"
    )
    picture(archive / "archive/a.png", 44)
    assert night(archive, 1)["failed"] == 1 and (theirs / "zarr.json").read_text() == "theirs"


def test_what_a_person_made_with_other_options_is_not_replaced(archive):
    with LocalPool(1) as pool:
        options = Options(tiers=("bicubic",), tile=64)
        source, output = archive / "archive/a.png", archive / "out/a.png.zarr"
        upscale_image(ImageJob(str(source), str(output), options), pool)
    before = {
        path: stamp for path, stamp in stamps(archive).items() if "tierscale" not in path.name
    }
    for number in range(2):
        assert night(archive, number)["failed"] == 1
    assert all(stamps(archive)[path] == stamp for path, stamp in before.items())
    assert numbers(night(archive, 2, overwrite=True)) == {"untouched": 2, "done": 1}


def test_another_output_is_filled_and_nothing_there_is_taken_for_ours(archive):
    night(archive)
    theirs = archive / "second/a.png.zarr"
    theirs.mkdir(parents=True)
    (theirs / "zarr.json").write_text("theirs")
    found = night(archive, 1, output="second")
    assert (
        numbers(found) == {"untouched": 2, "done": 1, "failed": 1}
        and (theirs / "zarr.json").read_text() == "theirs"
    )
    assert (archive / "second/deep/b.png.zarr/zarr.json").exists() and (
        archive / "out/a.png.zarr"
    ).exists()
