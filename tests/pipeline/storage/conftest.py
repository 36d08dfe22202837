"""An object store for the tests of storage."""

import os
import threading
from collections.abc import Iterator

import pytest

from tests.object_server import Server
from tierscale.pipeline.storage import object_store
from tierscale.pipeline.storage.paths import place, remove_tree

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    """An S3 server with a bucket `bucket`; TIERSCALE_S3_ENDPOINT names one other than our own.

    Faults, and counts of requests, are those of our own.
    """
    own = Server()
    thread = threading.Thread(target=own.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    endpoint = os.environ.get("TIERSCALE_S3_ENDPOINT", own.endpoint)
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE", 0.1)
    object_store.store_at.cache_clear()
    remove_tree(place("s3://bucket/"))
    yield own
    object_store.store_at.cache_clear()
    own.shutdown()
    own.server_close()
