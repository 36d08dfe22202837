"""An output against its receipts: damage is found, told and healed; how far a run is."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.commands import tierscale
from tierscale.pipeline.errors import Interrupted
from tierscale.pipeline.inference.enlarge import Engine
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.verify import Look, Sample, is_finished, status_of, verify_output
from tierscale.pipeline.run.workers.pool import LocalPool


def test_a_plan_that_was_changed_by_hand_is_refused(made, tmp_path, capsys):
    plain = json.loads((Folder(str(made)).path / "plan.json").read_text())
    plain["blend"] = 7
    (tmp_path / "x.zarr.tierscale").mkdir()
    (tmp_path / "x.zarr.tierscale/plan.json").write_text(json.dumps(plain))
    code, _, err = tierscale(capsys, "verify", tmp_path / "x.zarr")
    assert code == 2 and "was changed" in err


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "remove"])
def test_verify_finds_damage_and_heals_it(photo, tmp_path, capsys, damage):
    output = tmp_path / "out.zarr"
    options = ("--tiers", "bicubic", "--ray", "none", "--tile", "32")
    assert tierscale(capsys, "upscale", photo, output, *options)[0] == 0
    assert tierscale(capsys, "verify", output)[0] == 0
    before = zarr.open_array(f"{output}/0", mode="r")[:]
    shard = max(
        (Path(output) / "0" / "c").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    content = bytearray(shard.read_bytes())
    if damage == "remove":
        shard.unlink()
    else:
        content[len(content) // 3] ^= 0x55
        shard.write_bytes(
            {
                "flip": content,
                "truncate": content[: len(content) // 2],
                "zero": bytes(len(content)),
            }[damage]
        )
    code, _, err = tierscale(capsys, "verify", output)
    assert code == 1 and "shard" in err and "--heal" in err
    code, out, _ = tierscale(capsys, "verify", output, "--heal", "--json")
    assert code == 0 and json.loads(out)["healed"] == 1
    assert tierscale(capsys, "verify", output)[0] == 0
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], before)


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the finished output, to be damaged."""
    for path in (made, Folder(str(made)).path):
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path / made.name


def pixels(output):
    return [zarr.open_array(f"{output}/{level}", mode="r")[:] for level in (0, 1)]


@pytest.mark.parametrize("damage", ["deleted", "empty", "binary", "a digit"])
def test_a_receipt_that_is_gone_or_damaged_is_healed(made, copy, damage):
    """Its shard is made again; with it, the receipt."""
    names = ("receipts/0/1.1.json", "receipts/1/0.0.json")
    for file in (Folder(str(copy)).path / name for name in names):
        if damage == "deleted":
            file.unlink()
        elif damage == "a digit":
            plain = json.loads(file.read_text())
            other = "0" if plain["pixels_sha256"][0] != "0" else "1"
            plain["pixels_sha256"] = other + plain["pixels_sha256"][1:]
            file.write_text(json.dumps(plain))
        else:
            file.write_bytes(b"" if damage == "empty" else bytes(range(256)))
    with LocalPool(1) as pool:
        found = verify_output(str(copy), pool, Look())
        assert len(found.problems) == 2 and not found.good
        assert all(f"shard {name}" in str(found.problems) for name in ("1.1", "0.0"))
        healed = verify_output(str(copy), pool, Look(heal=True))
        assert healed.healed == 2 and healed.good
        assert verify_output(str(copy), pool, Look()).problems == ()
    for one, two in zip(pixels(copy), pixels(made), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_worker_that_heals_with_wrong_pixels_is_outvoted(made, copy, monkeypatch):
    """Without its receipt there is nothing to compare a shard with but its source."""
    (Folder(str(copy)).path / "receipts/0/1.1.json").unlink()
    run, sick = Engine.run, []

    def white(self, *arguments):
        sick[:] = sick or [self.device]
        tiles = run(self, *arguments)
        return [(tile * 0 + 1, macs) for tile, macs in tiles] if self.device is sick[0] else tiles

    monkeypatch.setattr(Engine, "run", white)
    with LocalPool(1) as pool:
        healed = verify_output(str(copy), pool, Look(heal=True))
    assert healed.good and len(healed.notes) == 1
    assert (
        "coffee.zarr: worker " in healed.notes[0] and "was ended: of shard 1.1" in healed.notes[0]
    )
    np.testing.assert_array_equal(pixels(copy)[0], pixels(made)[0])


def test_what_cannot_be_healed_is_said(copy, tmp_path):
    shard = next(path for path in (copy / "0/c").rglob("*") if path.is_file())
    shard.write_bytes(b"")
    folder = Folder(str(copy))
    plan = json.loads((folder.path / "plan.json").read_text())
    (folder.path / "plan.json").write_text(json.dumps({**plan, "uri": str(tmp_path / "gone.png")}))
    with LocalPool(1) as pool:
        found = verify_output(str(copy), pool, Look(heal=True))
    assert not found.good and len(found.problems) == 2
    assert "coffee.zarr cannot be healed: " in found.problems[0] and "gone.png" in found.problems[0]


def test_an_output_that_is_not_finished_is_one_problem(copy):
    (Folder(str(copy)).path / "summary.json").unlink()
    for file in Folder(str(copy)).path.glob("receipts/0/*"):
        file.unlink()
    with LocalPool(1) as pool:
        found = verify_output(str(copy), pool, Look(heal=True))
    assert not found.good and len(found.problems) == 1
    assert "is not finished: " in found.problems[0] and "upscale" in found.problems[0]


def test_a_sample_finds_what_it_reads_and_every_receipt_that_is_gone(copy):
    keys = sorted(Folder(str(copy)).receipt_keys())
    with LocalPool(1) as pool:
        assert verify_output(str(copy), pool, Look(choose=Sample(0.01, 1))).shards == 1
        (Folder(str(copy)).path / "receipts/0/1.1.json").unlink()
        found = verify_output(str(copy), pool, Look(choose=lambda keys: [(0, 0, 0)]))
    assert found.shards == 1 and "shard 1.1 has no receipt" in str(found.problems)
    assert len(keys) > 4


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_a_sample_of_many_outputs_is_the_share_of_all_their_shards(share):
    sample = Sample(share, 7)
    chosen = [sample([(0, 0, x) for x in range(count)]) for count in (3, 1, 7, 9, 30)]
    assert sum(map(len, chosen)) == math.ceil(share * 50)
    assert all(len(set(keys)) == len(keys) for keys in chosen)
    again = Sample(share, 7)
    assert [again([(0, 0, x) for x in range(count)]) for count in (3, 1, 7, 9, 30)] == chosen


def test_verification_can_be_stopped(copy):
    look = Look()
    look.stop.set()
    with LocalPool(1) as pool, pytest.raises(Interrupted):
        verify_output(str(copy), pool, look)


def test_an_output_whose_shard_was_cut_is_not_finished(photo, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    options = ("--tiers", "bicubic", "--ray", "none", "--tile", "32")
    assert tierscale(capsys, "upscale", photo, output, *options)[0] == 0
    folder = Folder(str(output))
    assert is_finished(folder, folder.plan())
    (output / "0/c/0/1/1").write_bytes(b"")
    assert not is_finished(folder, folder.plan())
    found = status_of(str(output), 0.0)
    assert found["status"] == "interrupted"
    assert found["shards"]["done"] == found["shards"]["total"] - 1


def test_status_tells_how_far(made):
    found = status_of(str(made), 0.0)
    assert found["status"] == "done" and found["shards"]["done"] == found["shards"]["total"] > 4
