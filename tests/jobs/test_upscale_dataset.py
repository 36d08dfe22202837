"""The job over a manifest: one bad row never stops the others, a second run finishes the rest, on
threads and on a running Ray head.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
import zarr
from PIL import Image

from tests.commands import tierscale
from tierscale.jobs.manifest_run import ManifestJob, image_jobs, run_manifest
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.dataset.results import RESULT
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.job import ImageJob

ROOT = Path(__file__).resolve().parents[2]
BICUBIC = Options(tiers=("bicubic",), tile=32)


@pytest.fixture
def images(tmp_path):
    stars = skimage.data.hubble_deep_field()
    (tmp_path / "in/deep").mkdir(parents=True)
    Image.fromarray(stars[:90, :80]).save(tmp_path / "in/a.png")
    Image.fromarray(stars[200:300, :70]).save(tmp_path / "in/deep/b.png")
    (tmp_path / "in/broken.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:500])
    return tmp_path


def job(root, **more):
    return ManifestJob(BICUBIC, str(root / "out"), ray="none", quiet=True, **more)


def test_every_row_gets_its_line_and_good_ones_their_output(images):
    manifest = Manifest(
        (
            Row(str(images / "in/a.png")),
            Row(str(images / "in/broken.png")),
            Row(str(images / "in/deep/b.png"), None, "2", "bicubic"),
        ),
        root=images / "in",
    )
    table = run_manifest(manifest, job(images))
    assert table.schema.equals(RESULT)
    rows = table.to_pylist()
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "broken.png" in rows[1]["error"] and rows[0]["error"] is None
    assert rows[2]["output"] == str(images / "out/deep/b.png.zarr") and (
        rows[2]["height"],
        rows[2]["width"],
    ) == (200, 140)
    wanted = upscale_array(
        np.array(Image.open(images / "in/a.png")), 4, tiers=["bicubic"], tile=32, axes="yxc"
    )
    np.testing.assert_array_equal(
        zarr.open_array(f"{rows[0]['output']}/0", mode="r")[:].transpose(1, 2, 0), wanted
    )
    again = run_manifest(manifest, job(images)).to_pylist()
    assert [row["status"] for row in again] == ["skipped", "failed", "skipped"]


def test_rows_that_cannot_be_name_their_number(images):
    (images / "m.jsonl").write_text(
        "\n".join(
            json.dumps(row)
            for row in [
                {"source": str(images / "in/a.png")},
                {"source": "x", "scale": "-1"},
                {"source": str(images / "none.png")},
                {"source": "x", "tiers": "bicubic,nosuch"},
            ]
        )
    )
    rows = run_manifest(Manifest.read(images / "m.jsonl"), job(images)).to_pylist()
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "failed"]
    assert rows[1]["error"].startswith("row 2, column scale") and rows[3]["error"].startswith(
        "row 4, column tiers: there is no"
    )


def test_lines_that_are_no_rows_are_listed_and_the_others_go_on(images):
    source = str(images / "in/a.png")
    (images / "m.jsonl").write_text(
        f'{{"source": "{source}"\n{{"source": "{source}"}}\n{{"scale": 2}}\n{{"source": "\\ud800"}}'
    )
    (images / "m.csv").write_text(f"source,scale\n{source},2,3\n{source},4\n")
    rows = run_manifest(Manifest.read(images / "m.jsonl"), job(images)).to_pylist()
    assert [(row["row"], row["source"], row["status"]) for row in rows] == [
        (1, "", "failed"), (2, source, "done"), (3, "", "failed"), (4, "?", "failed"),
    ]  # fmt: skip
    rows = run_manifest(Manifest.read(images / "m.csv"), job(images)).to_pylist()
    assert [row["status"] for row in rows] == ["failed", "skipped"]


def test_other_rows_never_move_an_output(images):
    """Outputs lie as their sources lie below the manifest's folder; what lies elsewhere keeps its
    whole path.
    """

    def outputs(*sources):
        (images / "in/m.jsonl").write_text(
            "".join(json.dumps({"source": str(source)}) + "\n" for source in sources)
        )
        manifest = Manifest.read(images / "in/m.jsonl")
        jobs, _ = image_jobs(manifest, job(images))
        return [one.image.output.removeprefix(str(images / "out")) for one in jobs]

    assert outputs(images / "in/deep/b.png") == ["/deep/b.png.zarr"]
    assert outputs(
        images / "in/deep/b.png", images / "in/a.png", "/elsewhere/a.png", "s3://store/../x/a.zarr/"
    ) == [
        "/deep/b.png.zarr",
        "/a.png.zarr",
        "/elsewhere/a.png.zarr",
        "/store/x/a.zarr.zarr",
    ]
    assert ImageJob("a.png", "x.zarr").output == os.path.abspath("x.zarr"), (
        "workers on a cluster run in other folders"
    )


def test_two_rows_with_one_output_do_not_fight(images):
    rows = (
        Row(str(images / "in/a.png"), "same.zarr"),
        Row(str(images / "in/deep/b.png"), "same.zarr"),
    )
    found = run_manifest(Manifest(rows), job(images)).to_pylist()
    assert [row["status"] for row in found] == [
        "done",
        "failed",
    ] and "is the output of row 1 too" in found[1]["error"]


def test_one_output_in_two_spellings_is_made_once(images):
    """Also with --overwrite, which would let each row replace what the other made."""
    (images / "out/real").mkdir(parents=True)
    (images / "out/link").symlink_to("real")
    outputs = ("x.zarr", "real/z.zarr", "{out}//x.zarr", "link/z.zarr", "x.zarr/inside.zarr")
    sources = ("a.png", "deep/b.png", "deep/b.png", "a.png", "a.png")
    rows = tuple(
        Row(str(images / "in" / source), output.format(out=images / "out"))
        for source, output in zip(sources, outputs, strict=True)
    )
    for overwrite in (False, True, True):
        found = run_manifest(Manifest(rows), job(images, overwrite=overwrite)).to_pylist()
        assert [row["status"] for row in found[2:]] == ["failed"] * 3
        for row, other in zip(found[2:], (1, 2, 1), strict=True):
            assert f"row {row['row']}, column output" in row["error"]
            assert f"is the output of row {other} too" in row["error"]
        for row, source in zip(found[:2], sources, strict=False):
            assert row["error"] is None
            plan = json.loads(Path(f"{row['output']}.tierscale/plan.json").read_text())
            assert plan["uri"].endswith(source)
    assert [row["status"] for row in found[:2]] == ["skipped", "skipped"]


def test_nothing_is_written_into_the_copy_of_a_folder_that_ray_unpacked(
    images, monkeypatch, capsys
):
    unpacked = images / "runtime_resources/working_dir_files/_ray_pkg_1"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    Manifest.scan(images / "in", "*.png").write(unpacked / "m.csv")
    line = ("--tiers", "bicubic", "--ray", "none", "--json")
    for more in (
        ("--output-root", "out/"),
        ("--output-root", str(unpacked / "out")),
        ("--output-root", str(images / "out"), "--results", "results.parquet"),
        (),
    ):
        code, out, err = tierscale(capsys, "dataset", "m.csv", *line, *more)
        assert code == 2 and "give an absolute path on a disk that stays" in err
        assert str(unpacked) in err and json.loads(out)["status"] == "failed"
    with pytest.raises(Refused, match="absolute"):
        run_manifest(Manifest.read("m.csv"), ManifestJob(BICUBIC, "out", ray="none", quiet=True))
    row = run_manifest(
        Manifest((Row(str(images / "in/a.png"), "x.zarr"),)),
        ManifestJob(BICUBIC, ray="none", quiet=True),
    ).to_pylist()[0]
    assert row["status"] == "failed" and "give an absolute path" in row["error"]
    assert [path.name for path in unpacked.iterdir()] == ["m.csv"]
    code, out, _ = tierscale(capsys, "dataset", "m.csv", *line, "--output-root", images / "out")
    assert json.loads(out)["done"] == 2 and (images / "out/results.parquet").is_file()


def test_the_result_says_the_plan_the_family_and_what_was_noted(images):
    row = run_manifest(Manifest((Row(str(images / "in/a.png")),)), job(images)).to_pylist()[0]
    plan = json.loads(Path(f"{row['output']}.tierscale/plan.json").read_text())
    summary = json.loads(Path(f"{row['output']}.tierscale/summary.json").read_text())
    assert row["plan"] == plan["digest"] and row["family"] == summary["family"]
    assert row["notes"] == summary["notes"]


def test_the_file_runs_directly_and_writes_its_table(images):
    Manifest.scan(images / "in", "*.png").write(images / "m.csv")
    command = [
        sys.executable,
        "jobs/upscale_dataset.py",
        "--manifest",
        images / "m.csv",
        "--output-root",
        images / "out",
        "--tiers",
        "bicubic",
    ]
    done = subprocess.run(
        [*map(str, command), "--ray", "none", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["done"] == 2 and "broken.png" in done.stderr
    assert pq.read_table(images / "out/results.parquet").num_rows == 3
    missing = subprocess.run(
        [*map(str, command[:3]), str(images / "no.csv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert missing.returncode == 2 and len(missing.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_submitted_job_is_killed_and_a_second_submit_finishes(images):
    """On a head that is already running, with Ray's token authentication on, as the README says."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    Image.fromarray(skimage.data.hubble_deep_field()[:640, :640]).save(images / "in/big.png")
    Manifest((Row(str(images / "in/big.png"), None, None, "bicubic,carn-x4", "full"),)).write(
        images / "m.parquet"
    )
    start = [
        "ray",
        "start",
        "--head",
        "--block",
        "--num-cpus=4",
        "--object-store-memory=200000000",
        "--port=6411",
        "--dashboard-port=8311",
    ]
    address = ["--address", "http://127.0.0.1:8311"]
    script = [
        "python",
        "jobs/upscale_dataset.py",
        "--manifest",
        str(images / "m.parquet"),
        "--output-root",
        str(images / "out"),
        "--tile",
        "32",
    ]
    head = subprocess.Popen(
        [*start, "--node-ip-address=127.0.0.1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ray(*arguments):
        return subprocess.run(
            ["ray", "job", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    try:
        until = time.monotonic() + 90
        while ray("list", *address).returncode:
            assert time.monotonic() < until, "the head did not come up"
            time.sleep(1)
        done = ray(
            "submit",
            *address,
            "--no-wait",
            "--submission-id",
            "first",
            "--working-dir",
            ".",
            "--",
            *script,
        )
        assert done.returncode == 0, done.stderr
        output = images / "out/in/big.png.zarr"
        receipts = Path(f"{output}.tierscale/receipts/0")
        while not receipts.exists() or not list(receipts.iterdir()):
            assert time.monotonic() < until + 90, ray("logs", *address, "first").stdout
            time.sleep(0.1)
        ray("stop", *address, "first")
        assert not Path(f"{output}.tierscale/summary.json").exists(), (
            "the first job ended before it could be stopped"
        )
        done = ray("submit", *address, "--working-dir", ".", "--", *script)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
    wanted = upscale_array(
        skimage.data.hubble_deep_field()[:640, :640],
        4,
        tiers=["bicubic", "carn-x4"],
        policy="full",
        tile=32,
        axes="yxc",
    )
    found = zarr.open_array(f"{output}/0", mode="r")[:]
    np.testing.assert_array_equal(found.transpose(1, 2, 0), wanted)
