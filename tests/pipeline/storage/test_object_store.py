"""Objects used as files, how often requests are repeated, and what errors say."""

import asyncio
import errno
import os
import random
import time

import pytest
import zarr
from obstore.exceptions import (
    GenericError,
    JoinError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from tests.object_server import EXPIRED
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.storage import object_store
from tierscale.pipeline.storage.download import download
from tierscale.pipeline.storage.paths import join_path, place, readable, remove_tree
from tierscale.pipeline.storage.zarr_store import zarr_store

pytestmark = pytest.mark.skipif(
    "TIERSCALE_S3_ENDPOINT" in os.environ, reason="faults and counts are those of our own server"
)


def test_an_object_is_used_as_a_file_is(server):
    folder = place("s3://bucket/a b/c?#%")
    file = folder / "x.json"
    assert (str(file), file.name, file.parent) == ("s3://bucket/a b/c?#%/x.json", "x.json", folder)
    assert not file.exists() and not folder.exists()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    with pytest.raises(FileNotFoundError):
        file.unlink()
    file.unlink(missing_ok=True)
    file.write_bytes(b"{}")
    (folder / "deep/y.json").write_bytes(b"[1]")
    (place("s3://bucket/a b/c?#%neighbour")).write_bytes(b"")
    assert (
        file.exists()
        and folder.is_dir()
        and not file.is_dir()
        and file.read_text() == "{}"
        and file.stat().st_size == 2
    )
    assert [entry.name for entry in folder.iterdir()] == ["deep", "x.json"]
    assert [str(found) for found in folder.glob("*/*.json")] == ["s3://bucket/a b/c?#%/deep/y.json"]
    remove_tree(folder)
    assert not folder.exists() and place("s3://bucket/a b/c?#%neighbour").exists()
    assert (
        join_path("s3://b/c/", "d", "e") == "s3://b/c/d/e"
        and join_path("/b", "d/e") == "/b/d/e"
        and place("file:///b").name == "b"
    )


def test_puts_can_depend_on_what_is_there(server):
    file = place("s3://bucket/lease.json")
    assert file.create(b"1") and not file.create(b"2") and file.read_bytes() == b"1"
    assert file.create(b"1"), "a request that was repeated finds what it put itself"
    etag = file.head().etag
    assert file.exchange(b"3", etag) and not file.exchange(b"4", etag) and file.read_bytes() == b"3"
    file.unlink()
    assert not file.exchange(b"5", etag) and not file.exists()


def test_what_lies_deeper_is_not_listed(server):
    """A copy under way is looked at every second: listing all its chunks each time would grow with
    their square.
    """
    for number in range(250):
        server.objects[f"/bucket/copy/c/0/{number // 50}/{number}"] = (b"", '"x"', 0.0)
    before = server.requests
    assert [entry.name for entry in place("s3://bucket/copy/c/0").iterdir()] == [
        "0",
        "1",
        "2",
        "3",
        "4",
    ]
    assert server.requests - before == 1


def test_no_credentials_are_one_sentence_at_once(monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    object_store.store_at.cache_clear()
    started = time.monotonic()
    with pytest.raises(Refused, match="AWS_ACCESS_KEY_ID"):
        open_image("s3://bucket/a.tif")
    assert time.monotonic() - started < 20
    object_store.store_at.cache_clear()


# What each request does when the store works, and the requests that takes.
REQUESTS = {
    "read": lambda: place("s3://bucket/a").read_bytes(),
    "download": lambda: download("s3://bucket/a"),
    "head": lambda: place("s3://bucket/a").stat(),
    "write": lambda: place("s3://bucket/b").write_bytes(b"1"),
    "create": lambda: place("s3://bucket/c").create(b"1"),
    "delete": lambda: place("s3://bucket/a").unlink(missing_ok=True),
    "list": lambda: place("s3://bucket/").listed(),
    "list directly": lambda: list(place("s3://bucket/").iterdir()),
}


@pytest.fixture
def few(server, monkeypatch):
    """The server, with objects, and three repetitions of each request."""
    monkeypatch.setattr(object_store, "RETRIES", 3)
    object_store.store_at.cache_clear()
    for name in "ad":
        place(f"s3://bucket/{name}").write_bytes(bytes(100))
    server.requests = 0
    return server


@pytest.mark.parametrize("fault", ["error", "reset", "lost", "partial", "mixed"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_store_that_is_down_gets_each_request_once_and_three_times_again(few, name, fault):
    chance = random.Random(1)
    kinds = ("error", "reset", "lost", "partial") if fault == "mixed" else (fault,)
    few.fault = lambda method, path: "error" if method == "HEAD" else chance.choice(kinds)
    with pytest.raises(OSError) as failed:
        REQUESTS[name]()
    assert few.requests == 4
    assert "s3://bucket" in str(failed.value) and len(str(failed.value).splitlines()) == 1


@pytest.mark.parametrize("fault", ["error", "reset", "lost", "partial"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_fault_that_passes_is_not_seen(few, name, fault):
    faults = iter([fault, None, fault, fault])
    few.fault = lambda method, path: next(faults, None)
    answer, keys = REQUESTS[name](), set(few.objects)
    few.fault = lambda method, path: None
    for key in ("b", "c"):
        place(f"s3://bucket/{key}").unlink(missing_ok=True)
    assert (answer, keys) == (REQUESTS[name](), set(few.objects))


def test_a_refusal_that_was_cut_is_not_final(few):
    """obstore gives up at "no such object" with an answer that is cut."""
    faults = iter(["partial"] * 3)
    few.fault = lambda method, path: next(faults, None)
    with pytest.raises(FileNotFoundError):
        place("s3://bucket/nothing").read_bytes()
    place("s3://bucket/lease").create(b"1")
    faults = iter(["partial"] * 3)
    assert not place("s3://bucket/lease").create(b"2")
    faults = iter(["partial"] * 3)
    with pytest.raises(FileNotFoundError):
        zarr.open_array(zarr_store("s3://bucket/nothing.zarr"), mode="r")


def test_many_objects_are_deleted_by_requests_of_a_thousand(few):
    for number in range(2500):
        few.objects[f"/bucket/many/{number:04}"] = (b"", '"x"', 0.0)
    few.objects["/bucket/many/zarr.json"] = (b"", '"x"', 0.0)
    deleted = []
    few.fault = lambda method, path: deleted.append(len(few.objects)) if method == "POST" else None
    remove_tree(place("s3://bucket/many"), last="zarr.json")
    assert deleted == [2503, 1503, 503, 3] and len(few.objects) == 2


@pytest.mark.parametrize("name", REQUESTS)
def test_expired_credentials_are_told_at_once_and_as_that(few, name):
    few.refusal = EXPIRED
    with pytest.raises(PermissionError) as failed:
        REQUESTS[name]()
    assert "the credentials have expired (ExpiredToken: The provided token" in str(failed.value)
    # To a HEAD the store does not say why.
    assert few.requests == (2 if name in ("head", "download") else 1)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (403, b"<Error><Code>InvalidAccessKeyId</Code></Error>", PermissionError, "not accepted"),
        (401, b"", PermissionError, "401"),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", OSError, "NoSuchBucket"),
    ],
)
def test_a_listing_that_is_refused_is_not_repeated(few, status, body, kind, words):
    """obstore has one class for all errors of listings."""
    few.refusal = (status, body)
    with pytest.raises(kind, match=words):
        place("s3://bucket/").listed()
    assert few.requests == 1


def test_an_error_is_told_by_its_class_and_not_by_its_text():
    for kind in (PermissionDeniedError, UnauthenticatedError):
        assert isinstance(object_store.described(kind("any words"), "s3://b/a"), PermissionError)
        assert not object_store.may_pass(kind("GenericError status code: 500 "))
    for kind in (GenericError, JoinError):
        assert object_store.described(kind("PermissionDenied"), "s3://b/a").errno == errno.EIO
        assert object_store.may_pass(kind("PermissionDenied, Unauthenticated"))


def test_whether_something_can_be_read_is_asked_once(few):
    place("s3://bucket/folder/x").write_bytes(b"1")
    assert readable("s3://bucket/a") and readable("s3://bucket/folder")
    assert not readable("s3://bucket/none")
    for refusal in (EXPIRED, (500, b""), (403, b"")):
        few.refusal, few.requests = refusal, 0
        assert not readable("s3://bucket/a") and few.requests == 1


@pytest.mark.parametrize("fault", ["error", "partial"])
def test_zarr_repeats_no_more(few, fault):
    array = zarr.create_array(
        zarr_store("s3://bucket/a.zarr"), shape=(4, 4), chunks=(4, 4), dtype="u1"
    )
    array[:] = 1
    few.requests = 0
    few.fault = lambda method, path: fault
    with pytest.raises(GenericError):
        array[:]
    assert few.requests == 4
    few.requests = 0
    with pytest.raises(OSError):
        zarr.open_group(zarr_store("s3://bucket/a.zarr"), mode="w")
    assert few.requests == 4


def test_a_long_listing_goes_on_behind_what_arrived(few):
    """Each page may fail as often as any request: the count begins anew with what arrives."""
    for number in range(1000):
        few.objects[f"/bucket/many/{number:04}"] = (b"", '"x"', 0.0)
    count = [0]

    def two_of_three(method, path):
        count[0] += 1
        return "partial" if count[0] % 3 else None

    few.fault = two_of_three
    assert [row.key for row in place("s3://bucket/many").listed()] == [
        f"{number:04}" for number in range(1000)
    ]
    group = zarr.storage.StorePath(zarr_store("s3://bucket/many")).store
    names = asyncio.run(everything(group))
    assert len(names) == 1000 and names[0] == "0000"


async def everything(store):
    return [name async for name in store.list()]


def test_zarr_lists_and_deletes_what_lies_below(server):
    group = zarr.open_group(zarr_store("s3://bucket/g.zarr"), mode="w")
    group.create_group("one").create_array("deep", shape=(2,), dtype="u1")
    group.create_array("two", shape=(2,), dtype="u1")
    place("s3://bucket/g.zarr.beside").write_bytes(b"")
    assert sorted(name for name, _ in group.members()) == ["one", "two"]
    del group["one"]
    assert sorted(name for name, _ in group.members()) == ["two"]
    zarr.open_group(zarr_store("s3://bucket/g.zarr"), mode="w")
    assert [row.key for row in place("s3://bucket/").listed()] == [
        "g.zarr.beside",
        "g.zarr/zarr.json",
    ]
