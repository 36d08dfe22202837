"""What an image will take, before anything is written."""

import json

from tests.commands import tierscale


def test_plan_tells_what_it_will_take_and_writes_nothing(photo, tmp_path, capsys):
    code, out, _ = tierscale(
        capsys,
        "plan",
        photo,
        tmp_path / "out.zarr",
        "--tiers",
        "bicubic,fsrcnn-x4",
        "--budget",
        "0.5",
        "--json",
    )
    found = json.loads(out)
    assert code == 0 and found["cost_share"] <= 0.5 and found["refused"] is None
    assert {
        "memory_bytes",
        "disk_bytes",
        "seconds_estimate",
        "tile",
        "halo",
        "halo_overhead",
    } <= set(found)
    assert found["disk_bytes"] == 3 * (1200 * 1360 + 600 * 680)
    assert found["files"] == {} and list(tmp_path.iterdir()) == []
    plain = json.loads(
        tierscale(capsys, "plan", photo, tmp_path / "out.zarr", "--tiers", "bicubic", "--json")[1]
    )
    assert plain["halo_overhead"] == 0 < found["halo_overhead"], (
        "halos are those of the tiers that were chosen"
    )
