"""A Ray cluster that is asked for by its address answers soon, or is refused in one sentence."""

import socket
import time

import pytest

from cluster import session
from pipeline.errors import Refused


@pytest.fixture
def nobody():
    """The address of a server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("where", ["silent", "closed", "unknown", "environment"])
def test_an_address_where_no_cluster_answers_is_refused(nobody, monkeypatch, where):
    monkeypatch.setattr(session, "ANSWER_SECONDS", 1)
    address = {"silent": nobody, "closed": "127.0.0.1:9", "unknown": "nowhere.invalid:6379", "environment": nobody}[where]
    if where == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(Refused, match=rf"no Ray cluster answers at {address} within 1 s; .*--ray local"):
        session.start("auto" if where == "environment" else address, None)
    assert time.monotonic() - began < 8
    assert session.ANSWER_SECONDS < 15


def test_a_server_that_speaks_grpc_answers():
    import concurrent.futures

    import grpc

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert session.answers(f"127.0.0.1:{port}")
    finally:
        server.stop(None)
