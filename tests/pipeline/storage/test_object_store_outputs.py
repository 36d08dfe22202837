"""Sources and outputs in an object store: the same bytes as on a disk, whatever goes wrong."""

import json
import os
import threading
from datetime import datetime

import numpy as np
import pytest
import skimage.data
import zarr
from PIL import Image

from tests.object_server import DENIED, EXPIRED, FAULTS
from tests.pipeline.run import upscaling
from tests.pipeline.storage.conftest import SECRET
from tierscale.jobs.manifest_run import ManifestJob, run_manifest
from tierscale.jobs.night_run import NightlyOptions, nightly
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.errors import Damaged, Interrupted, Refused, Unreachable
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output import store
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.verify import Look, status_of, verify_output
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.shard_tasks import FinishShard, VerifyShard
from tierscale.pipeline.storage import object_store
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import place, remove_tree
from tierscale.pipeline.storage.zarr_store import zarr_store

OPTIONS = Options(tiers=("bicubic",), tile=24)


ours = pytest.mark.skipif(
    "TIERSCALE_S3_ENDPOINT" in os.environ, reason="faults are those of our own server"
)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(skimage.data.hubble_deep_field()[:200, :210]).save(path)
    return path


@pytest.fixture(scope="module")
def plain(picture, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "out.zarr"
    upscale(picture, output)
    return pixels(output)


def upscale(source, output, options=OPTIONS, **more):
    return upscaling.upscale(source, output, options, workers=2, **more)


def pixels(output):
    return zarr.open_array(zarr_store(str(output)), path="0", mode="r")[:]


def uploaded(picture, key="in/a.png"):
    ObjectPath(f"s3://bucket/{key}").write_bytes(picture.read_bytes())
    return f"s3://bucket/{key}"


def check_whole(output, plain):
    """The array is right, every shard is as its receipt says, and every object under its name can
    be read.
    """
    np.testing.assert_array_equal(pixels(output), plain)
    with LocalPool(1) as pool:
        found = verify_output(output, pool, Look())
    assert found.problems == () and found.shards >= 4
    folder = Folder(output)
    for entry in folder.path.listed():
        assert not entry.key.endswith((".tmp", ".dead")) and entry.key != "lease.json"
        if entry.key.endswith(".json"):
            json.loads((folder.path / entry.key).read_text())


def test_a_file_in_a_bucket_becomes_an_output_in_a_bucket(server, picture, plain, tmp_path):
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    summary = upscale(source, output)
    assert (
        summary.done_before == 0
        and summary.to_json()["files"]["preview"] == f"{output}.tierscale/preview.png"
    )
    check_whole(output, plain)
    names = {entry.key.split("/")[0] for entry in Folder(output).path.listed()}
    assert {
        "plan.json",
        "tiles.parquet",
        "receipts",
        "preview.png",
        "routing.png",
        "report.html",
    } <= names and "source.zarr" not in names
    assert upscale(source, output).written == 0
    assert status_of(output, 0.0)["status"] == "done"
    upscale(source, tmp_path / "local.zarr")
    np.testing.assert_array_equal(pixels(tmp_path / "local.zarr"), plain)
    upscale(picture, "s3://bucket/out/b.zarr")
    np.testing.assert_array_equal(pixels("s3://bucket/out/b.zarr"), plain)


def test_a_run_that_was_stopped_goes_on(server, picture, plain):
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    stop = threading.Event()

    class Stopping(LocalPool):
        def submit(self, task, kind="light", as_reference=False):
            if isinstance(task, FinishShard) and any(Folder(output).path.glob("receipts/0/*.json")):
                stop.set()
            return super().submit(task, kind, as_reference)

    with Stopping(1) as pool, pytest.raises(Interrupted):
        upscale_image(ImageJob(source, output, OPTIONS), pool, Controls(stop=stop))
    summary = upscale(source, output)
    assert summary.done_before >= 1 and summary.written >= 1
    check_whole(output, plain)


@pytest.mark.parametrize("way", ["cut", "gone"])
def test_shards_that_are_not_as_long_as_their_receipts_say_are_made_again(
    server, picture, plain, way
):
    """Stores keep what they have acknowledged; people and their scripts do not."""
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    upscale(source, output)
    shard = place(f"{output}/0/c/0/1/1")
    shard.unlink() if way == "gone" else shard.write_bytes(shard.read_bytes()[:-1])
    again = upscale(source, output)
    assert again.written == 1 and again.done_before == again.shards - 1
    check_whole(output, plain)


def test_identity_of_a_zarr_in_a_bucket(server):
    array = zarr.create_array(
        zarr_store("s3://bucket/a.zarr"), shape=(8, 8), chunks=(4, 4), dtype="u1"
    )
    array[:] = 1
    with open_image("s3://bucket/a.zarr") as source:
        before = source.identity
        assert (source.read(0, 8, 0, 8) == 1).all()
    array.resize((12, 8))
    assert open_image("s3://bucket/a.zarr").identity != before
    for name in ("nothing.tif", "nothing.zarr"):
        with pytest.raises(Refused, match="no such file"):
            open_image(f"s3://bucket/{name}")


def test_another_plan_is_refused_and_replaced_when_told(server, picture, plain):
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    upscale(source, output, Options(tiers=("bicubic",), tile=48))
    with pytest.raises(Refused, match="another plan"):
        upscale(source, output)
    upscale(source, output, overwrite=True)
    check_whole(output, plain)
    place("s3://bucket/theirs.zarr/zarr.json").write_bytes(b"{}")
    with pytest.raises(Refused, match="not made by tierscale"):
        upscale(source, "s3://bucket/theirs.zarr")
    assert place("s3://bucket/theirs.zarr/zarr.json").read_bytes() == b"{}"


def test_a_damaged_object_is_found_and_healed(server, picture, plain):
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    upscale(source, output)
    shard = next(entry for entry in place(f"{output}/0").listed() if entry.key.startswith("c/"))
    file = place(f"{output}/0/{shard.key}")
    file.write_bytes(file.read_bytes()[: shard.bytes // 2])
    with LocalPool(1) as pool:
        found = verify_output(output, pool, Look(heal=True))
    assert len(found.problems) == found.healed == 1
    check_whole(output, plain)


@ours
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_one_kind_are_survived(server, picture, plain, fault):
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    count = [0]

    def every_fourth(method, path):
        count[0] += 1
        return fault if count[0] % 4 == 0 else None

    server.fault = every_fourth
    upscale(source, output)
    server.fault = lambda method, path: None
    assert server.said[fault] > 10
    check_whole(output, plain)


@ours
def test_faults_of_all_kinds_are_survived(server, picture, plain):
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    server.seeded(7, 0.25)
    upscale(source, output)
    server.fault = lambda method, path: None
    assert set(server.said) == set(FAULTS)
    check_whole(output, plain)


@ours
def test_a_store_that_is_down_is_one_sentence_and_leaves_nothing_unreadable(
    server, picture, plain, monkeypatch
):
    monkeypatch.setattr(object_store, "RETRIES", 2)
    object_store.store_at.cache_clear()
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    server.fault = lambda method, path: "partial" if method == "PUT" and "/0/c/" in path else None
    with pytest.raises(Damaged) as error:
        upscale(source, output)
    assert (
        output in str(error.value)
        and len(str(error.value).splitlines()) == 1
        and len(str(error.value)) < 600
    )
    server.fault = lambda method, path: None
    assert not [path for path in server.objects if "/0/c/" in path] and not list(
        Folder(output).path.glob("receipts/*/*.json")
    )
    upscale(source, output)
    check_whole(output, plain)


@ours
def test_a_store_that_says_no_is_refused_without_secrets(server, picture):
    source = uploaded(picture)
    server.refusal = DENIED
    for arguments in ((source, "s3://bucket/out/a.zarr"), (str(picture), "s3://bucket/out/a.zarr")):
        with pytest.raises((Refused, Damaged)) as error:
            upscale(*arguments)
        text = str(error.value)
        assert "s3://bucket" in text and len(text.splitlines()) == 1 and SECRET not in text


@ours
def test_credentials_that_expire_are_no_damage(server, picture, monkeypatch):
    """Neither of a source nor of an output, which would be healed then."""
    source, output = uploaded(picture), "s3://bucket/out/a.zarr"
    upscale(source, output)
    compare, asked = VerifyShard.run, []

    def expires(self, worker):
        asked.append(self)
        server.refusal = EXPIRED
        return compare(self, worker)

    monkeypatch.setattr(VerifyShard, "run", expires)
    with LocalPool(1) as pool, pytest.raises((Refused, Unreachable), match="have expired"):
        verify_output(output, pool, Look(heal=True))
    assert asked
    with pytest.raises(Refused, match="the credentials have expired"), open_image(source):
        pass


@ours
def test_a_shard_that_cannot_be_asked_for_is_no_damage(server, picture):
    output = "s3://bucket/out/a.zarr"
    upscale(uploaded(picture), output)
    array = store.open_level(output, 0)
    server.refusal = EXPIRED
    with pytest.raises(Unreachable, match=r"cannot be read .*have expired.*; check the object"):
        store.read_rect(array, store.shard_rect(array, (0, 0)), "shard 0.0")


def test_a_manifest_writes_below_its_prefix(server, picture):
    job = ManifestJob(OPTIONS, "s3://bucket/out", ray="none", quiet=True)
    rows = (
        Row(uploaded(picture)),
        Row(str(picture), "named.zarr"),
        Row(str(picture), "s3://bucket/outside/x.zarr"),
        Row(str(picture), "/tmp/x.zarr"),
    )
    found = run_manifest(Manifest(rows), job).to_pylist()
    assert [row["status"] for row in found] == ["done", "done", "failed", "failed"]
    assert [row["output"] for row in found[:2]] == [
        "s3://bucket/out/bucket/in/a.png.zarr",
        "s3://bucket/out/named.zarr",
    ]
    assert not place("s3://bucket/outside").exists()


def test_an_array_becomes_a_zarr_in_a_bucket(server):
    array = np.random.default_rng(0).integers(0, 255, (3, 60, 70)).astype(np.uint8)
    how = {"tiers": "bicubic", "tile": 16}
    made = upscale_array(array, 2, out="s3://bucket/out/array.zarr", **how)
    np.testing.assert_array_equal(made[:], upscale_array(array, 2, **how))
    with pytest.raises(Refused, match=r"s3://bucket/out/array.zarr exists"):
        upscale_array(array, 2, out="s3://bucket/out/array.zarr", **how)


def test_nights_over_a_bucket(server, picture, tmp_path):
    uploaded(picture)
    zarr.create_array(
        zarr_store("s3://bucket/in/deep/b.zarr"),
        data=np.zeros((40, 40), np.uint8),
        chunks=(20, 20),
    )
    place("s3://bucket/in/.hidden/c.png").write_bytes(b"")
    place("s3://bucket/in/notes.txt").write_bytes(b"")
    evening = datetime(2026, 11, 21, 22, 0).timestamp()

    def night(number):
        job = NightlyOptions(
            "s3://bucket/in",
            "s3://bucket/out",
            str(tmp_path / "l.db"),
            "06:00",
            OPTIONS,
            "none",
            workers=1,
            quiet=True,
        )
        found = nightly(job, clock=lambda: evening + 86400 * number)
        return {
            name: found[name]
            for name in ("new", "changed", "untouched", "done", "failed", "left")
            if found[name]
        }

    assert night(0) == {"new": 2, "done": 2}
    assert (
        place("s3://bucket/out/deep/b.zarr.zarr/0").is_dir()
        and place("s3://bucket/out/a.png.zarr/0").is_dir()
    )
    assert not place("s3://bucket/out/.tierscale-probe").exists()
    uploaded(picture)
    assert night(1) == {"untouched": 2}, "the same bytes again are no change"
    remove_tree(place("s3://bucket/out/deep/b.zarr.zarr"))
    assert (
        night(1) == {"untouched": 2, "done": 1}
        and place("s3://bucket/out/deep/b.zarr.zarr/0").is_dir()
    )
    zarr.open_array(zarr_store("s3://bucket/in/deep/b.zarr"), mode="r+")[:5] = 9
    place("s3://bucket/in/bad.tif").write_bytes(b"II*\0")
    assert night(2) == {"new": 1, "changed": 1, "untouched": 1, "done": 1, "failed": 1}
