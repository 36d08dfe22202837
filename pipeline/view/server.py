"""The page of a scene, handed out on this machine alone."""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import secrets
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tierscale.pipeline.errors import Refused, one_line
from tierscale.pipeline.storage.path_policy import printable
from tierscale.pipeline.view.scene import Scene, script

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
# Files of the page by name, and what they are.
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "view.css": ("view.css", "text/css; charset=utf-8"),
    "view.js": ("view.js", "text/javascript; charset=utf-8"),
    "openseadragon.min.js": ("openseadragon.min.js", "text/javascript; charset=utf-8"),
}
SCRIPT = "text/javascript; charset=utf-8"
# Only numbers are taken out of addresses.
TILE = re.compile(r"tile/(\d{1,3})/(\d{1,3})/(\d{1,7})_(\d{1,7})\.(jpg|png)")
ROW = re.compile(r"row/(\d{1,7})\.js")
HEADERS = {
    # Nothing is asked of any other machine, and no other page may show this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'"
    " 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
log = logging.getLogger(__name__)
Found = tuple[str, bytes]


def listen(scene: Scene, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server of a scene, and the address of its page, which holds a random token.

    port: 0 for any that is free. Refused: the port cannot be had. serve_forever() serves.
    """
    token = secrets.token_urlsafe(24)
    try:
        server = ThreadingHTTPServer((HOST, port), partial(Handler, scene, token))
    except (OSError, OverflowError) as error:
        raise Refused(
            f"port {port} cannot be listened on ({one_line(error)}); leave --port out for a free"
            " one"
        ) from error
    server.daemon_threads = True
    return server, f"http://{HOST}:{server.server_port}/{token}/"


class Handler(BaseHTTPRequestHandler):
    """Answers with files of the page, tiles and figures; with 404 to whoever has no token."""

    protocol_version = "HTTP/1.1"

    def __init__(self, scene: Scene, token: str, *rest: Any) -> None:
        self.scene, self.token = scene, token
        super().__init__(*rest)

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer(True)

    def do_HEAD(self) -> None:
        """The same without its body."""
        self._answer(False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each tile would hide what matters."""

    def _answer(self, body: bool) -> None:
        status, found = HTTPStatus.OK, self._allowed()
        if found is None:
            status, found = HTTPStatus.NOT_FOUND, ("text/plain; charset=utf-8", b"not found\n")
        kind, content = found
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store" if status != HTTPStatus.OK else "max-age=3600")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _allowed(self) -> Found | None:
        """What is asked for; None: there is no such thing, or whoever asks may not have it."""
        port = self.server.server_port  # type: ignore[attr-defined]
        # Another site's name that leads here would make its pages ours.
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            return None
        token, slash, name = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        try:
            return content(self.scene, name)
        except Exception as error:  # a tile that cannot be read is missing, and the log says why
            log.warning("%s: %s", printable(name), one_line(error))
            return None


def content(scene: Scene, name: str) -> Found | None:
    """(type, bytes) of what the page loads by `name`; None: there is no such thing."""
    if name in FILES:
        file, kind = FILES[name]
        return kind, (PAGE / file).read_bytes()
    if name == "info.js":
        return SCRIPT, script("tierscale.begin", scene.about())
    if name == "tiers.png" and scene.tiers is not None:
        return "image/png", scene.map()
    if tile := TILE.fullmatch(name):
        layer, level, column, row = (int(number) for number in tile.groups()[:4])
        exact = tile[5] == "png"
        if not scene.has(layer, level, row, column) or (scene.alpha and not exact):
            return None
        picture = scene.picture(layer, level, row, column, exact)
        return f"image/{'png' if exact else 'jpeg'}", picture
    asked = ROW.fullmatch(name)
    if asked and scene.tiers is not None and int(asked[1]) < len(scene.tiles_map.routes):
        return SCRIPT, script("tierscale.row", scene.row(int(asked[1])))
    return None


def serve(server: ThreadingHTTPServer) -> None:
    """Serve until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
