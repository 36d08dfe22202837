"""Who gets the page, and what it holds."""

import http.client
import logging
from urllib.parse import urlsplit

import pytest

from tests.pipeline.view.scenes import scene, served
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.view import server
from tierscale.pipeline.view.layers import Stored
from tierscale.pipeline.view.scene import Named


@pytest.fixture(scope="module")
def address():
    with served(scene()) as found:
        yield found


def ask(address, name="", method="GET", host=None):
    """(status, headers, body) of what lies under an address."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.putrequest(method, parts.path + name, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html"),
        ("view.js", "text/javascript"),
        ("view.css", "text/css"),
        ("openseadragon.min.js", "text/javascript"),
        ("info.js", "text/javascript"),
        ("row/2.js", "text/javascript"),
        ("tiers.png", "image/png"),
        ("tile/0/0/1_1.jpg", "image/jpeg"),
        ("tile/1/0/0_0.png", "image/png"),
    ],
)
def test_the_page_loads(address, name, kind):
    status, headers, body = ask(address, name)
    assert status == 200 and headers["Content-Type"].startswith(kind) and body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert ask(address, name, "HEAD")[2] == b""


@pytest.mark.parametrize(
    "name",
    [
        *("nothing", "../view.js", "tile/0/0/2_0.jpg", "tile/0/9/0_0.jpg", "tile/2/0/0_0.jpg"),
        *("tile/-1/0/0_0.jpg", "tile/0/0/0_0.gif", "row/3.js", "row/x.js", "%2e%2e/x", "view.js/"),
        "tile/0/0/99999999_0.jpg",
    ],
)
def test_what_there_is_not_is_not_found(address, name):
    assert ask(address, name)[0] == 404


def test_only_who_was_given_the_address_gets_anything(address):
    port = urlsplit(address).port
    assert len(urlsplit(address).path.strip("/")) >= 16
    path = urlsplit(address).path
    for wrong in ("/", "/x/", f"{path[:-2]}/", "//", f"/{'%C3%A9' * 16}/", path.upper()):
        assert ask(f"http://127.0.0.1:{port}", wrong)[0] == 404
    assert ask(address, host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", ""):
        assert ask(address, host=host)[0] == 404


def test_other_methods_are_refused(address):
    assert ask(address, method="POST")[0] == 501


def test_a_tile_that_cannot_be_read_is_missing_and_told(monkeypatch, caplog):
    class Broken(Stored):
        def window(self, level, rect):
            raise Damaged("a.zarr cannot be read back")

    broken = scene()
    layer = broken.result.layer
    shown = scene(tiers=None)
    object.__setattr__(
        shown, "result", Named("result", Broken(layer.path, layer.levels, layer.screen))
    )
    with served(shown) as address, caplog.at_level(logging.WARNING):
        assert ask(address, "tile/0/0/0_0.jpg")[0] == 404
    assert "cannot be read back" in caplog.text


def test_a_port_that_is_taken_is_refused(address):
    with pytest.raises(Refused, match="leave --port out for a free one"):
        server.listen(scene(), urlsplit(address).port)
