"""What decoders and storage raise becomes one sentence, which says whose fault it is."""

import errno
import json

import numpy as np
import pytest
from obstore.exceptions import GenericError

from tierscale.pipeline.errors import Damaged, Refused, Unreachable
from tierscale.pipeline.formats.decoding import decoding
from tierscale.pipeline.formats.source import ingest_bytes
from tierscale.pipeline.storage.failures import UNREACHABLE

EXPIRED = "status code: 400 Bad Request: <Error><Code>ExpiredToken</Code></Error>"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError(), Refused, "does not fit in memory"),
        (FileNotFoundError(2, "No such file"), Refused, "there is no such file"),
        (ImportError("no libx"), Refused, "needs another package"),
        (NotImplementedError("no such bits"), Refused, "of a kind that the decoder does not know"),
        (PermissionError(13, "Permission denied"), Refused, "check its permissions"),
        (ValueError("no\nmarker"), Damaged, "damaged or cut short, fetch it again"),
        (OSError("image file is truncated"), Damaged, "damaged or cut short, fetch it again"),
        (Refused("as it is"), Refused, "^as it is$"),
    ],
)
def test_each_error_is_one_sentence(error, kind, words):
    with pytest.raises(kind, match=words) as raised, decoding("/in/a.tif"):
        raise error
    assert type(raised.value) is kind and "\n" not in str(raised.value)


@pytest.mark.parametrize("number", sorted(UNREACHABLE))
def test_a_disk_that_fails_is_no_damage_of_the_file(number):
    with pytest.raises(Unreachable, match="check its disk") as raised, decoding("/in/a.tif"):
        raise OSError(number, "the reason")
    assert "fetch it again" not in str(raised.value)
    assert errno.ENOENT not in UNREACHABLE and errno.ENOSPC not in UNREACHABLE


def test_what_an_object_store_answers_is_no_damage_of_the_object():
    """zarr lets errors of obstore through as they are."""
    with pytest.raises(Refused, match="credentials have expired") as raised, decoding("s3://b/a"):
        raise GenericError(EXPIRED)
    assert "check the credentials" in str(raised.value)
    with pytest.raises(Unreachable, match="check its object store"), decoding("s3://b/a"):
        raise GenericError("no answer")


def test_a_mistake_of_ours_is_no_damage_of_the_file():
    with pytest.raises(TypeError), decoding("/in/a.tif"):
        ingest_bytes((3, None, 4), np.dtype("u1"))
    # What libraries raise of a broken file is: theirs are the frames where it was raised.
    with pytest.raises(Damaged, match="damaged"), decoding("/in/a.tif"):
        json.loads(3)
