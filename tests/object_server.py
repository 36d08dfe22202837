"""A small S3 server for tests: objects in memory, conditional puts, multipart uploads, listings,
and faults on demand.
"""

import hashlib
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

# error: 500 without effect. slow: an answer after a while. reset: cut before anything is done.
# lost: done, but cut before the answer. partial: cut in the middle of what is sent, either way.
FAULTS = ("error", "slow", "reset", "lost", "partial")
DENIED = (403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
EXPIRED = (
    400,
    b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has"
    b" expired.</Message></Error>",
)


class Server(ThreadingHTTPServer):
    """objects: content by /bucket/key. fault: what goes wrong with a request (method, path), or
    None. said: faults so far, by name. refusal: status and body of the answer to all requests, or
    None.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[bytes, str, float]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.said: dict[str, int] = {}
        self.requests = 0
        self.refusal: tuple[int, bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def seeded(self, seed: int, share: float) -> None:
        """From now on, this share of all requests goes wrong, in every way in turn."""
        chance = random.Random(seed)
        self.fault = lambda method, path: chance.choice(FAULTS) if chance.random() < share else None

    def handle_error(self, request, client_address):
        """Connections that were cut on purpose are no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _any(self):
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        length = int(self.headers.get("Content-Length") or 0)
        with self.server.lock:
            self.server.requests += 1
            fault = self.server.fault(self.command, path)
            if fault:
                self.server.said[fault] = self.server.said.get(fault, 0) + 1
        if self.server.refusal:
            self.rfile.read(length)
            return self._answer(*self.server.refusal)
        if fault == "reset" or (fault == "partial" and self.command in ("PUT", "POST")):
            self.rfile.read(length // 2 if fault == "partial" else 0)
            return self._cut()
        body = self.rfile.read(length)
        if fault == "error":
            return self._answer(
                500,
                b"<Error><Code>InternalError</Code><Message>We encountered an internal"
                b" error.</Message></Error>",
            )
        if fault == "slow":
            time.sleep(0.2)
        with self.server.lock:
            answer = self._act(path, query, body)
        if fault == "lost":
            return self._cut()
        self._answer(*answer, half=fault == "partial")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any

    def _cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status, body=b"", headers=None, half=False):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
            if half and body:
                self.wfile.flush()
                self._cut()

    def _act(self, path, query, body):
        """What S3 does with a request: (status, body, headers)."""
        if "list-type" in query:
            return self._list(path.strip("/"), query)
        if self.command == "POST" and "uploads" in query:
            name = uuid.uuid4().hex
            self.server.uploads[name] = {}
            return 200, f"<R><UploadId>{name}</UploadId></R>".encode(), {}
        if self.command == "PUT" and "uploadId" in query:
            self.server.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        if self.command == "POST" and "uploadId" in query:
            parts = self.server.uploads.pop(query["uploadId"][0], None)
            if parts is None:  # completed before, the answer was lost
                return 404, b"<Error><Code>NoSuchUpload</Code></Error>", {}
            return self._put(path, b"".join(parts[number] for number in sorted(parts)), xml=True)
        if self.command == "POST" and "delete" in query:
            keys = [unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", body.decode())]
            for key in keys:
                self.server.objects.pop(f"{path.rstrip('/')}/{key}", None)
            deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            return (
                200,
                f"<DeleteResult>{deleted}</DeleteResult>".encode(),
                {"Content-Type": "application/xml"},
            )
        if self.command == "DELETE":
            (
                self.server.uploads.pop(query.get("uploadId", [""])[0], None)
                if "uploadId" in query
                else self.server.objects.pop(path, None)
            )
            return 204, b"", {}
        if self.command == "PUT":
            return self._put(path, body)
        return self._get(path)

    def _put(self, path, body, xml=False):
        found = self.server.objects.get(path)
        if (self.headers.get("If-None-Match") == "*" and found) or (
            self.headers.get("If-Match") and (not found or found[1] != self.headers["If-Match"])
        ):
            return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        self.server.objects[path] = (body, etag, time.time())
        return 200, f"<R><ETag>{escape(etag)}</ETag></R>".encode() if xml else b"", {"ETag": etag}

    def _get(self, path):
        if path not in self.server.objects:
            return (
                404,
                b"" if self.command == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>",
                {},
            )
        body, etag, modified = self.server.objects[path]
        headers = {
            "ETag": etag,
            "Last-Modified": formatdate(modified, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if wanted := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            start, stop = wanted[1], wanted[2]
            first = int(start) if start else max(0, len(body) - int(stop))
            last = min(int(stop), len(body) - 1) if start and stop else len(body) - 1
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            return 206, body[first : last + 1], headers
        return (
            200,
            body,
            {**headers, "Content-Length": str(len(body))} if self.command == "HEAD" else headers,
        )

    def _list(self, bucket, query):
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        keys = sorted(
            path.removeprefix(f"/{bucket}/")
            for path in self.server.objects
            if path.startswith(f"/{bucket}/{prefix}")
        )
        folders = sorted(
            {
                prefix + key[len(prefix) :].split(delimiter)[0] + delimiter
                for key in keys
                if delimiter and delimiter in key[len(prefix) :]
            }
        )
        keys = [
            key
            for key in keys
            if not (delimiter and delimiter in key[len(prefix) :]) and key > after
        ]
        page, more = keys[:100], len(keys) > 100
        rows = []
        for key in page:
            body, etag, modified = self.server.objects[f"/{bucket}/{key}"]
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(modified))
            rows.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{stamp}</LastModified><ETag>{escape(etag)}</ETag>"
                f"<Size>{len(body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        rows += [
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in folders
        ]
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        text = f"<ListBucketResult>{truncated}{token}{''.join(rows)}</ListBucketResult>"
        return 200, text.encode(), {"Content-Type": "application/xml"}
