"""Outputs: what is not ours is left alone, and what is replaced stays until nothing refuses."""

from pathlib import Path

import numpy as np
import zarr

from tests.commands import FAST, check_refusal, tierscale
from tierscale.pipeline.storage import lease


def test_outputs_that_are_not_ours_are_left_alone(capsys, image, tmp_path):
    foreign = tmp_path / "foreign.zarr"
    zarr.create_array(str(foreign), shape=(4, 4), dtype="u1")
    for extra in ((), ("--overwrite",)):
        check_refusal(
            tierscale(capsys, "upscale", image, foreign, *FAST, *extra),
            2,
            "was not made by tierscale",
        )
    assert zarr.open_array(str(foreign), mode="r").shape == (4, 4)
    check_refusal(
        tierscale(capsys, "upscale", foreign, foreign / "inside.zarr", *FAST),
        2,
        "inside the source",
    )
    check_refusal(tierscale(capsys, "upscale", foreign, foreign, *FAST), 2, "inside the source")
    check_refusal(
        tierscale(capsys, "upscale", image, tmp_path / "foreign.tif", *FAST),
        2,
        "foreign.tif",
        "foreign.zarr",
        "not made by tierscale",
    )
    check_refusal(
        tierscale(capsys, "upscale", image, tmp_path / "out.jpg", *FAST), 2, ".tif or .png"
    )


def test_an_output_that_is_the_source_or_beside_it_is_refused(capsys, image, tmp_path):
    assert tierscale(capsys, "upscale", image, tmp_path / "a.zarr", *FAST)[0] == 0
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    ingested = Path(f"{tmp_path}/a.zarr.tierscale/source.zarr")
    assert tierscale(capsys, "ingest", image, ingested)[0] == 0
    for source, output in (
        (tmp_path / "a.zarr", tmp_path / "a.zarr"),
        (tmp_path / "a.zarr", tmp_path / "a.tif"),
        (tmp_path / "a.zarr/0", tmp_path / "a.tif"),
        (ingested, tmp_path / "a.zarr"),
    ):
        for extra in ((), ("--overwrite",)):
            check_refusal(
                tierscale(capsys, "upscale", source, output, *FAST, *extra),
                2,
                str(source),
                str(output),
                "choose a",
            )
    assert ingested.exists() and set(before) < {
        path for path in tmp_path.rglob("*") if path.is_file()
    }


def test_a_source_may_be_called_source_zarr(capsys, image, tmp_path):
    assert tierscale(capsys, "ingest", image, tmp_path / "source.zarr")[0] == 0
    assert (
        tierscale(capsys, "upscale", tmp_path / "source.zarr", tmp_path / "out.zarr", *FAST)[0] == 0
    )
    assert zarr.open_array(str(tmp_path / "source.zarr"), mode="r").shape == (3, 40, 50)


def test_overwrite_keeps_the_finished_output_until_nothing_refuses_the_new_plan(
    capsys, image, tmp_path, monkeypatch
):
    output = tmp_path / "out.zarr"
    assert tierscale(capsys, "upscale", image, output, *FAST)[0] == 0
    pixels = zarr.open_array(f"{output}/0", mode="r")[:]
    again = ("--ray", "none", "--tiers", "bicubic,fsrcnn-x4", "--overwrite")
    check_refusal(
        tierscale(capsys, "upscale", image, output, *again, "--budget", "0.0001"),
        2,
        "less than the first tier costs",
    )
    with monkeypatch.context() as patch:
        patch.setattr("tierscale.pipeline.run.resources.disk_bytes", lambda plan: 1 << 60)
        check_refusal(
            tierscale(capsys, "upscale", image, output, *again, "--policy", "full"),
            2,
            "free; choose another place",
        )
    assert tierscale(capsys, "plan", image, output, *again, "--policy", "full")[0] == 0, (
        "a plan writes nothing"
    )
    assert tierscale(capsys, "verify", output)[0] == 0
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], pixels)
    assert tierscale(capsys, "upscale", image, output, *again, "--policy", "full")[0] == 0
    assert (zarr.open_array(f"{output}/0", mode="r")[:] != pixels).any() and tierscale(
        capsys, "verify", output
    )[0] == 0
    assert {path.name for path in Path(f"{output}.tierscale").iterdir()}.isdisjoint(
        {"replaced", "lease.json", "source.zarr"}
    )


def test_a_plan_that_another_run_stored_meanwhile_is_seen(capsys, image, tmp_path, monkeypatch):
    output = tmp_path / "out.zarr"
    enter = lease.Lease.__enter__

    def late(self):
        monkeypatch.undo()
        assert tierscale(capsys, "upscale", image, output, *FAST, "--tile", "16")[0] == 0
        return enter(self)

    monkeypatch.setattr(lease.Lease, "__enter__", late)
    check_refusal(tierscale(capsys, "upscale", image, output, *FAST), 2, "another run began")
    assert tierscale(capsys, "verify", output)[0] == 0


def test_no_file_of_the_users_is_replaced_by_an_export(capsys, image, tmp_path):
    output, letter, mine = tmp_path / "a.zarr", tmp_path / "letter.tif", tmp_path / "a.tif"
    before = image.read_bytes()
    assert tierscale(capsys, "upscale", image, output, *FAST)[0] == 0
    letter.write_text("dear")
    mine.write_text("mine")
    for file in (image, letter):
        check_refusal(tierscale(capsys, "export", output, file), 2, file.name, "--overwrite")
    check_refusal(tierscale(capsys, "upscale", image, mine, *FAST), 2, "a.tif", "--overwrite")
    check_refusal(tierscale(capsys, "export", output, output / "b.tif"), 2, "b.tif", "lies in")
    assert (image.read_bytes(), letter.read_text(), mine.read_text()) == (before, "dear", "mine")
    for _ in range(2):  # what it wrote itself it may write again
        assert tierscale(capsys, "export", output, tmp_path / "made.tif")[0] == 0
    assert tierscale(capsys, "export", output, letter, "--overwrite")[0] == 0


def test_ingest_makes_an_array_that_enlarges_alike(capsys, image, tmp_path):
    assert tierscale(capsys, "ingest", image, tmp_path / "in.zarr")[0] == 0
    assert tierscale(capsys, "upscale", image, tmp_path / "a.zarr", *FAST)[0] == 0
    assert tierscale(capsys, "upscale", tmp_path / "in.zarr", tmp_path / "b.zarr", *FAST)[0] == 0
    a, b = (zarr.open_array(str(tmp_path / f"{name}.zarr/0"), mode="r")[:] for name in "ab")
    np.testing.assert_array_equal(a, b)
