"""`tierscale verify`: one output, a folder of them, or those of a ledger."""

import json

from tests.commands import check_refusal, tierscale
from tests.jobs.nights import night


def test_folders_and_ledgers_are_verified_and_healed(archive, capsys):
    night(archive)
    for target, outputs in (("out", 2), ("ledger.db", 2), ("out/a.png.zarr", 1)):
        code, out, err = tierscale(capsys, "verify", archive / target, "--json")
        found = json.loads(out)
        assert code == 0 and not err and found["status"] == "done"
        assert (found["outputs"], found["problems"]) == (outputs, []) and found["shards"] >= outputs
    shard = next(p for p in (archive / "out/a.png.zarr/0/c").rglob("*") if p.is_file())
    shard.write_bytes(b"")
    for target in ("out", "ledger.db"):
        code, out, err = tierscale(capsys, "verify", archive / target, "--json")
        assert code == 1 and json.loads(out)["status"] == "failed"
        assert "a.png.zarr level 0 shard 0.0" in err
    code, out, _ = tierscale(capsys, "verify", archive / "ledger.db", "--heal")
    assert code == 0 and "2 outputs, " in out and "1 wrong, 1 healed" in out
    assert tierscale(capsys, "verify", archive / "out", "--sample", "1%")[0] == 0


def test_a_sample_of_nothing_and_a_path_to_nothing_are_refused(archive, capsys):
    result = tierscale(capsys, "verify", archive / "out", "--sample", "0")
    check_refusal(result, 2, "reads nothing")
    check_refusal(
        tierscale(capsys, "verify", archive / "nowhere"), 2, "no output, folder or ledger"
    )
