"""An output against its receipts: damage is found, told and healed; how far a run is."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.commands import tierscale
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.verify import is_finished, status_of


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
