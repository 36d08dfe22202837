"""A Ray cluster that is asked for by its address answers soon, or is refused in one sentence."""

import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tierscale.cluster import session
from tierscale.pipeline.errors import Refused

ROOT = Path(__file__).resolve().parents[2]


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
    address = {
        "silent": nobody,
        "closed": "127.0.0.1:9",
        "unknown": "nowhere.invalid:6379",
        "environment": nobody,
    }[where]
    if where == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(
        Refused, match=rf"no Ray cluster answers at {address} within 1 s; .*--ray local"
    ):
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


def test_a_home_that_cannot_hold_rays_token_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 4 4 255\n" + bytes(48))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")
    }
    command = [
        sys.executable,
        "-m",
        "tierscale",
        "upscale",
        tmp_path / "a.ppm",
        tmp_path / "out.zarr",
        "--tiers",
        "bicubic",
        "--ray",
        "local",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "HOME": "/proc/none"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.strip().splitlines()[-1]
        == "tierscale: Ray cannot store its token in /proc/none/.ray/auth_token (No such file or"
        " directory); set HOME to a writable folder, or use --ray none"
    )


@pytest.mark.parametrize(
    ("address", "alone"),
    [("127.0.0.1:6379", True), ("[::1]:6379", True), ("192.168.1.7:6379", False)],
)
def test_a_ray_of_our_own_that_others_reach_is_ended_and_refused(monkeypatch, address, alone):
    """As one would be of a release that keeps what was read of the variable elsewhere."""
    import ray

    events = []
    monkeypatch.delenv(session.LISTENING, raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: events.append(os.environ[session.LISTENING]))
    monkeypatch.setattr(ray, "shutdown", lambda: events.append("ended"))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
    if alone:
        session.start("local", 1)
    else:
        with pytest.raises(Refused, match=r"Ray 2\.\S+ listens at 192\.168\.1\.7, .* --ray none$"):
            session.start("local", 1)
    assert events == (["0"] if alone else ["0", "ended"]) and session.LISTENING not in os.environ
    events.clear()
    monkeypatch.setenv(session.LISTENING, "1")
    session.start("local", 1)
    assert events == ["1"], "who allows it is not refused"


HEAD, LIGHT, FULL = {"CPU": 0.0}, {"CPU": 4.0, "light": 3.0}, {"CPU": 8.0, "full": 2.0}


@pytest.fixture
def cluster_of(monkeypatch):
    """Makes ray.nodes() tell of more nodes each time it is asked, and waiting take no time."""
    import ray

    seconds = itertools.count()
    monkeypatch.setattr(
        session,
        "time",
        SimpleNamespace(sleep=lambda _: None, monotonic=lambda: float(next(seconds))),
    )

    def made(*looks):
        answers = iter(looks)
        last = []

        def nodes():
            last[:] = next(answers, last)
            return [{"Resources": node, "Alive": True} for node in last]

        monkeypatch.setattr(ray, "nodes", nodes)

    return made


def test_a_kind_of_node_that_is_missing_is_waited_for(cluster_of, caplog):
    cluster_of([HEAD, LIGHT], [HEAD, LIGHT], [HEAD, LIGHT, FULL])
    assert session.nodes_of(set(), "auto") == [HEAD, LIGHT, FULL]
    assert caplog.messages == ["waiting up to 60 s for a node for full workers"]
    cluster_of([HEAD], [HEAD, FULL], [HEAD, FULL, LIGHT])
    assert session.nodes_of({"light", "full"}, "auto") == [HEAD, FULL, LIGHT]
    assert caplog.messages[1:] == ["waiting up to 600 s for a node for light or full workers"]


def test_the_wait_for_nodes_is_limited(cluster_of, caplog):
    cluster_of([HEAD, LIGHT])
    assert session.nodes_of(set(), "auto") == [HEAD, LIGHT]
    assert caplog.messages[1:] == ["no node for full workers came; the other nodes do all the work"]
    with pytest.raises(
        Refused, match="no node for light or full workers came within 600 s; see ray status"
    ):
        cluster_of([HEAD])
        session.nodes_of({"light", "full"}, "auto")


def test_nothing_is_waited_for_where_nobody_speaks_of_kinds(cluster_of, caplog):
    cluster_of([{"CPU": 4.0}])
    assert session.nodes_of(set(), "auto") == [{"CPU": 4.0}]
    cluster_of([LIGHT])
    assert session.nodes_of({"full"}, "together") == [LIGHT] and not caplog.messages


def test_the_head_knows_which_nodes_the_autoscaler_is_to_start(monkeypatch, tmp_path):
    monkeypatch.setattr(session, "BOOTSTRAP", ROOT / "cluster/deploy/ray-cluster.yaml")
    assert session.expected_kinds() == {"light", "full"}
    monkeypatch.setattr(session, "BOOTSTRAP", tmp_path / "none.yaml")
    assert session.expected_kinds() == set()
