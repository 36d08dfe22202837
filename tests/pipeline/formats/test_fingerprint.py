"""The same image has the same identity, and its content is read once."""

import json
import os

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.pipeline.formats.pictures import picture
from tierscale.pipeline.formats import fingerprint
from tierscale.pipeline.formats.fingerprint import content_digest
from tierscale.pipeline.formats.registry import open_array, open_image
from tierscale.pipeline.plan.options import Selection


def test_identity_follows_content_and_selection_not_name_or_time(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    os.utime(tmp_path / "b.png", (1, 1))
    Image.fromarray(picture(9, 9, seed=1)).save(tmp_path / "c.png")
    same, copy, other = (
        open_image(tmp_path / name).identity for name in ("a.png", "b.png", "c.png")
    )
    assert same == copy != other
    json.dumps(same)
    stack = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    identities = [open_image(tmp_path / "a.tif", Selection(z=z)) for z in range(2)]
    for source in identities:
        source.close()
    assert identities[0].identity != identities[1].identity
    assert open_array(stack, "cyx").identity != open_array(stack + 1, "cyx").identity


def test_identity_of_large_files_is_known_by_their_ends_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr("tierscale.pipeline.formats.fingerprint.WHOLE_DIGEST", 0)
    monkeypatch.setattr("tierscale.pipeline.formats.fingerprint.BLOCK", 64)
    Image.fromarray(picture(30, 30)).save(tmp_path / "a.png")
    before = open_image(tmp_path / "a.png").identity
    assert before == open_image(tmp_path / "a.png").identity and "mtime_ns" in before
    os.utime(tmp_path / "a.png", (1, 1))
    assert before != open_image(tmp_path / "a.png").identity


def test_identity_of_a_large_array_is_told_by_its_ends(monkeypatch):
    """Whatever its axes: of three planes of a gigabyte, the first and the last are not copied."""
    monkeypatch.setattr(fingerprint, "WHOLE_DIGEST", 10_000)
    monkeypatch.setattr(fingerprint, "BLOCK", 100)
    digested = []
    real = fingerprint._end
    monkeypatch.setattr(
        fingerprint, "_end", lambda *part: digested.append(real(*part)) or digested[-1]
    )
    array = np.zeros((3, 90, 70), np.uint8)
    before = fingerprint.array_identity(array, "cyx")
    assert sum(part.nbytes for part in digested) < 4 * 100
    for place, seen in (((0, 0, 0), True), ((2, 89, 69), True), ((1, 40, 40), False)):
        changed = array.copy()
        changed[place] = 1
        assert (fingerprint.array_identity(changed, "cyx") != before) == seen


def test_identity_of_a_zarr_changes_with_any_chunk(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 8), chunks=(4, 4), dtype="u1", compressors=None
    )
    array[:] = 1
    before = open_image(tmp_path / "a.zarr").identity
    assert before == open_image(tmp_path / "a.zarr").identity
    array[5, 5] = 2
    assert before != open_image(tmp_path / "a.zarr").identity


@pytest.fixture
def reads(monkeypatch):
    """Paths whose content was read for a digest, in order."""
    paths = []

    def counted(path, size):
        paths.append(path)
        return content_digest(path, size)

    monkeypatch.setattr("tierscale.pipeline.formats.fingerprint.content_digest", counted)
    return paths


@pytest.mark.parametrize("form", ["png", "jpg", "tif", "ppm", "npy", "jp2"])
def test_a_file_is_digested_once_however_often_it_is_opened(tmp_path, reads, form):
    path = str(tmp_path / f"a.{form}")
    if form == "npy":
        np.save(path, picture(9, 9))
    else:
        Image.fromarray(picture(9, 9)).save(path)
    identities = []
    for _ in range(3):
        with open_image(path) as source:
            identities += [source.identity, source.identity]
    assert identities == identities[:1] * 6 and reads == [path]


def test_a_file_that_changed_is_digested_again(tmp_path, reads):
    path = tmp_path / "a.ppm"
    identities = set()
    for value in range(5):  # as fast as it goes, and of the same size
        path.write_bytes(b"P6 2 2 255\n" + bytes([value]) * 12)
        with open_image(path) as source:
            identities.add(source.identity["sha256"])
    assert len(identities) == 5 == len(reads)


def test_a_change_that_leaves_size_and_time_is_seen(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 2 2 255\n" + bytes(12))
    before, stat = open_image(path), os.stat(path)
    assert before.identity == open_image(path).identity
    path.write_bytes(b"P6 2 2 255\n" + bytes([1]) * 12)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = open_image(path)
    assert after.stamp != before.stamp and after.identity != before.identity
    for source in (before, after):
        source.close()


def test_what_is_no_single_local_file_has_no_stamp(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(8, 8), chunks=(4, 4), dtype="u1")
    with open_image(tmp_path / "a.zarr") as source:
        assert source.stamp is None
