"""Many outputs are verified at once: those of a folder, and those that a ledger knows."""

import shutil

import pytest

from tests.jobs.nights import night, picture
from tierscale.pipeline.dataset.verification import Outputs, outputs_at, verify_all
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.run.verify import Look, Sample
from tierscale.pipeline.run.workers.pool import LocalPool


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three outputs of a night, and the ledger; tests only read them."""
    root = tmp_path_factory.mktemp("night")
    (root / "archive/deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c.png")):
        picture(root / "archive" / name, 40 + number)
    assert night(root)["done"] == 3
    return root


@pytest.fixture
def nights(three, tmp_path):
    """A copy of them, to be damaged."""
    shutil.copytree(three, tmp_path / "nights")
    return tmp_path / "nights"


def verify(outputs, look=None):
    with LocalPool(1) as pool:
        return verify_all(outputs, look or Look(), lambda device: pool)


def names(outputs, root):
    return [path.removeprefix(f"{root}/out/") for path in outputs.paths]


def test_all_outputs_below_a_folder_are_found(nights):
    (nights / "out/theirs.zarr").mkdir()
    (nights / "out/link").symlink_to(nights / "out/deep")
    assert names(outputs_at(str(nights / "out")), nights) == [
        "a.png.zarr", "b.png.zarr", "deep/c.png.zarr",
    ]  # fmt: skip
    found = verify(outputs_at(f"{nights}/out/"))
    assert found.good and found.shards == 3
    assert names(outputs_at(str(nights / "out/a.png.zarr")), nights) == ["a.png.zarr"]


def test_half_of_an_output_is_found_and_wrong(nights):
    """Without the folder beside it, or without the array."""
    shutil.rmtree(nights / "out/a.png.zarr.tierscale")
    shutil.rmtree(nights / "out/b.png.zarr")
    outputs = outputs_at(str(nights / "out"))
    assert names(outputs, nights) == ["a.png.zarr", "b.png.zarr", "deep/c.png.zarr"]
    found = verify(outputs)
    assert not found.good and len(found.problems) == 2
    assert "a.png.zarr has no plan" in found.problems[0] and "b.png.zarr" in found.problems[1]


def test_damage_of_one_never_hides_that_of_another(nights):
    for name in ("a.png", "deep/c.png"):
        shard = next(p for p in (nights / f"out/{name}.zarr/0/c").rglob("*") if p.is_file())
        shard.write_bytes(b"")
    outputs = outputs_at(str(nights / "out"))
    assert len(verify(outputs).problems) == 2
    healed = verify(outputs, Look(heal=True))
    assert healed.good and healed.healed == 2 and verify(outputs).good


def test_a_ledger_knows_its_outputs_and_those_that_are_gone(three, tmp_path):
    ledger = str(three / "ledger.db")
    outputs = outputs_at(ledger)
    assert names(outputs, three) == ["a.png.zarr", "b.png.zarr", "deep/c.png.zarr"]
    moved = three / "out/a.png.zarr"
    moved.rename(tmp_path / "away")
    try:
        outputs = outputs_at(ledger)
        assert names(outputs, three) == ["b.png.zarr", "deep/c.png.zarr"]
        assert len(outputs.problems) == 1 and "a.png.zarr or the folder" in outputs.problems[0]
        assert not verify(outputs).good
    finally:
        (tmp_path / "away").rename(moved)


def test_outputs_that_are_all_gone_are_a_disk_that_is(three, tmp_path):
    (three / "out").rename(tmp_path / "away")
    try:
        with pytest.raises(Damaged, match=r"none of the 3 outputs .* is there.*disk is mounted"):
            outputs_at(str(three / "ledger.db"))
    finally:
        (tmp_path / "away").rename(three / "out")


def test_a_sample_is_drawn_from_all(nights):
    outputs = outputs_at(str(nights / "out"))
    total = verify(outputs).shards
    assert verify(outputs, Look(choose=Sample(0.5, 3))).shards == -(-total // 2)


def test_what_is_none_of_the_three_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("nowhere", "there is no output, folder or ledger"),
        ("file", "neither an output of tierscale nor a ledger"),
        ("empty", "there are no outputs of tierscale below"),
    ):
        with pytest.raises(Refused, match=words):
            outputs_at(str(tmp_path / name))
    with pytest.raises(Refused, match="there is no"):
        verify(Outputs((str(tmp_path / "x.zarr"),)))
