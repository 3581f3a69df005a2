"""A server between plstore and an object store: counts requests, and makes some of them fail.

    python -m benchmarks.proxy --port PORT --target http://127.0.0.1:5000

It passes S3 requests on. ``GET /_control`` returns what was counted since it was asked last;
``PUT /_control`` sets the faults, as JSON: a list of objects with ``kind`` and

- ``slow_down``: ``share`` of requests answered 503 SlowDown
- ``drop``: ``share`` of requests whose connection ends before they are passed on
- ``drop_answer``: the same, after they were passed on and done
- ``part``: the first ``times`` uploads of a part answered 500
- ``expired``: 403 ExpiredToken from the request on that is number ``after``
- ``lag``: objects younger than ``seconds`` are not in listings
"""

import argparse
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

_CONTROL: Final = "/_control"
_CONTENTS: Final = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY: Final = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_CODES: Final = {403: "ExpiredToken", 500: "InternalError", 503: "SlowDown"}
_TEXTS: Final = {
    403: "The provided token has expired.",
    500: "We encountered an internal error. Please try again.",
    503: "Please reduce your request rate.",
}


def kind_of(method: str, path: str) -> str:
    """Return what S3 calls a request, and what its price goes by."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    is_bucket = parts.path.strip("/").count("/") == 0
    if method == "GET" and is_bucket:
        return "LIST"
    if "uploadId" in query or "uploads" in query:
        return "PART" if method == "PUT" else "MULTIPART"
    return "DELETE" if "delete" in query else method


class State:
    """What the server has seen, and what it is to do to requests; shared by its threads."""

    def __init__(self) -> None:
        """Count from nothing, without faults."""
        self.lock = threading.Lock()
        self.faults: list[dict[str, Any]] = []
        self.random = random.Random(0)  # noqa: S311  the same faults each time
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.failed = 0
        self.seen = 0
        self.written: dict[str, float] = {}

    def take(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Take new faults in place of those that there were."""
        with self.lock:
            self.faults = [dict(fault) for fault in faults]
            self.seen = 0

    def report(self) -> dict[str, Any]:
        """Return the counts, and begin anew."""
        with self.lock:
            found = {
                "requests": dict(self.requests),
                "bytes": dict(self.bytes),
                "failed": self.failed,
            }
            self.requests, self.bytes, self.failed = Counter(), Counter(), 0
            return found

    def note(self, kind: str, path: str, sent: int, received: int) -> None:
        """Count a request that was passed on."""
        with self.lock:
            self.requests[kind] += 1
            self.bytes["sent"] += sent
            self.bytes["received"] += received
            if kind in {"PUT", "MULTIPART"}:
                self.written[_key(path)] = time.monotonic()

    def fault(self, kind: str) -> str | int | None:
        """Return what goes wrong with a request: a status, a kind of dropping, or nothing."""
        with self.lock:
            self.seen += 1
            found = next((f for fault in self.faults if (f := self._of(fault, kind))), None)
            self.failed += found is not None
            return found

    def _of(self, fault: dict[str, Any], kind: str) -> str | int | None:
        name = fault["kind"]
        if name == "expired":
            return 403 if self.seen > fault["after"] else None
        if name == "part":
            fault["times"] -= kind == "PART"
            return 500 if kind == "PART" and fault["times"] >= 0 else None
        if name == "lag" or self.random.random() >= fault["share"]:
            return None
        return 503 if name == "slow_down" else str(name)

    def hidden(self) -> set[str]:
        """Return the keys that no listing is to name yet."""
        with self.lock:
            lags = [fault["seconds"] for fault in self.faults if fault["kind"] == "lag"]
            young = time.monotonic() - max(lags, default=0)
            return {key for key, written in self.written.items() if written > young}


def _key(path: str) -> str:
    """Return the key of an object, without its bucket."""
    return unquote(urlsplit(path).path).lstrip("/").partition("/")[2]


class Handler(BaseHTTPRequestHandler):
    """Passes one request on."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State
    target: str

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Pass it on."""
        self._answer()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815  names of http.server

    def _answer(self) -> None:
        body = self._body()
        if self.path == _CONTROL:
            self._control(body)
            return
        kind = kind_of(self.command, self.path)
        fault = self.state.fault(kind)
        if isinstance(fault, int):
            self._reply(fault, {"Content-Type": "application/xml"}, _error(fault))
            return
        if fault == "drop":
            self._hang_up()
            return
        response, data = self._pass_on(body)
        if kind == "LIST":
            data = _without(data, self.state.hidden())
        self.state.note(kind, self.path, len(body), len(data))
        if fault == "drop_answer":
            self._hang_up()
            return
        headers = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
        size = response.getheader("Content-Length") if self.command == "HEAD" else None
        self._reply(response.status, headers, data, size)

    def _control(self, body: bytes) -> None:
        if self.command == "PUT":
            self.state.take(json.loads(body))
            self._reply(200, {}, b"{}")
        else:
            self._reply(200, {}, json.dumps(self.state.report()).encode())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _pass_on(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP | {"expect"}}
        headers["Content-Length"] = str(len(body))
        for attempt in (0, 1):
            connection = HTTPConnection(self.target, timeout=60)
            try:
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                return response, response.read()
            except (OSError, HTTPException):
                if attempt:
                    raise
            finally:
                connection.close()
        raise AssertionError

    def _reply(
        self, status: int, headers: Mapping[str, str], data: bytes, size: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", size or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()


def _error(status: int) -> bytes:
    code, text = _CODES[status], _TEXTS[status]
    return f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()


def _without(listing: bytes, hidden: set[str]) -> bytes:
    """Return a listing without some keys."""

    def kept(match: re.Match[bytes]) -> bytes:
        key = _KEY.search(match[0])
        is_hidden = key is not None and unquote(key[1].decode()) in hidden
        return b"" if is_hidden else match[0]

    return _CONTENTS.sub(kept, listing) if hidden else listing


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing: connections are dropped on purpose."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target", required=True, help="URL of the object store")
    options = parser.parse_args(arguments)
    settings = {"state": State(), "target": urlsplit(options.target).netloc}
    handler = type("Handler", (Handler,), settings)
    _Server(("127.0.0.1", options.port), handler).serve_forever()


if __name__ == "__main__":
    main()
