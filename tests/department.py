"""A department's REST server that can misbehave, for tests of both kinds of paging and of the wire below them."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors import rest
from connectors.connections import Connection
from connectors.errors import YiciError
from connectors.landing import Landing
from connectors.reading import blocks
from connectors.source import RestOptions, Source, load


class Server(ThreadingHTTPServer):
    """OAuth2 client credentials and one paged path, by number or by token. ``faults`` are used up one a data request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.records: list[Any] = [
            {"gmsfhm": f"{i:06d}", "n": i, "gxsj": f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}Z"} for i in range(25)
        ]
        self.faults: list[Fault] = []
        self.asked: list[dict[str, str]] = []
        self.etags: list[str | None] = []
        self.moments: list[float] = []
        self.authorisations: list[str | None] = []
        self.token, self.tokens, self.token_seconds = "token-1", 0, 300
        self.shrink_before: dict[int, int] = {}
        self.do_not_expire = False  # every token is good, for several sessions at a time
        self.etag: str | None = None
        self.resumes = False
        self.before_page: Callable[[int], None] = lambda _: None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """The client hangs up on purpose in some tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: bytes, **headers: str) -> bool:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 304:
            self.send_header("Content-Length", headers.get("Content_Length", str(len(body))))
        self.end_headers()
        self.wfile.write(body)
        return True

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        expected = "Basic " + base64.b64encode(b"me:hush").decode()
        if self.headers["Authorization"] != expected or form["grant_type"] != ["client_credentials"]:
            self.reply(401, b'{"error": "invalid_client"}')
            return
        self.server.tokens += 1
        self.server.token = f"token-{self.server.tokens}"
        token = {"access_token": self.server.token, "token_type": "Bearer", "expires_in": self.server.token_seconds}
        self.reply(200, json.dumps(token).encode())

    def do_GET(self) -> None:
        server = self.server
        asked = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
        server.asked.append(asked)
        server.etags.append(self.headers["If-None-Match"])
        server.moments.append(time.monotonic())
        server.authorisations.append(self.headers["Authorization"])
        if server.faults and server.faults.pop(0)(self):
            return
        if self.headers["Authorization"] != f"Bearer {server.token}" and not server.do_not_expire:
            self.reply(401, b"{}")
        elif "page" in asked:
            self.numbered(asked)
        else:
            self.tokened(asked)

    def numbered(self, asked: dict[str, str]) -> None:
        server, number, size = self.server, int(asked["page"]), int(asked["page_size"])
        for _ in range(server.shrink_before.pop(number, 0)):
            server.records.pop(0)
        since = asked.get("updated_since", "")
        window = [r for r in server.records if since <= str(r["gxsj"]) <= asked["updated_until"]]
        self.page(window[(number - 1) * size : number * size], len(window), number, size)

    def page(self, records: list[Any], total: int, number: int, size: int) -> bool:
        page = {"page": number, "page_size": size, "total": total, "records": records}
        return self.reply(200, json.dumps(page).encode())

    def tokened(self, asked: dict[str, str]) -> None:
        """A token is the place in the list; ``before_page`` may change the list first."""
        server, size = self.server, int(asked["limit"])
        if server.etag and self.headers["If-None-Match"] == server.etag:
            self.reply(304, b"", ETag=server.etag)
            return
        if "cursor" in asked:
            place = int(asked["cursor"].removeprefix("at-"))
        else:
            since = asked.get("updated_since", "")
            place = next((n for n, r in enumerate(server.records) if str(r["gxsj"]) >= since), len(server.records))
        etag = {"ETag": server.etag} if server.etag else {}
        server.before_page(place)
        end = min(place + size, len(server.records))
        key = "next" if end < len(server.records) else "resume"
        ends = {key: f"at-{end}"} if key == "next" or server.resumes else {}
        self.reply(200, json.dumps({"records": server.records[place:end], **ends}).encode(), **etag)


Fault = Callable[[Handler], bool]


@contextlib.contextmanager
def served() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()


def connected(server: Server) -> Connection:
    return Connection("sh-ga", server.url, "me", "hush")


def made(**options: Any) -> Source:
    """A source of that server, by number unless ``paging`` says otherwise, quick to give up."""
    source = load("sh-ga-residents")
    quick = {"page_size": 10, "backoff_seconds": 0.01, "attempts": 3, "requests_per_second": 1000, "columns": ()}
    quick |= {"records": "records", "size_parameter": "limit" if options.get("paging") == "cursor" else "page_size"}
    assert isinstance(source.options, RestOptions)
    return source.model_copy(update={"options": source.options.model_copy(update={**quick, **options})})


def keys(source: Source, fetched: Any, landing: Landing) -> list[str]:
    return [k for f in fetched.files for b in blocks(source, f, landing) for k in b.table["gmsfhm"].to_pylist()]


def expect(code: str, kind: type[YiciError], source: Source, connection: Connection, landing: Landing) -> YiciError:
    """Fetching fails with that error, which is told in both languages and gives nothing away."""
    with pytest.raises(kind) as caught:
        rest.fetch(source, connection, None, landing)
    assert caught.value.code == code
    for lang in ("zh", "en"):
        assert caught.value.message(lang) and caught.value.advice(lang)
    assert "hush" not in str(caught.value)
    return caught.value


def status(code: int, **headers: str) -> Fault:
    return lambda handler: handler.reply(code, b"{}", **headers)


def body(data: bytes, **headers: str) -> Fault:
    return lambda handler: handler.reply(200, data, **headers)


def chunked(handler: Handler, data: bytes, whole: bool = True) -> bool:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data))
    handler.wfile.write(b"0\r\n\r\n" if whole else b"")
    return True


def fine(_: Handler) -> bool:
    return False
