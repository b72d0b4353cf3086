"""connectors/rest.py and department.py against a real HTTP server that can misbehave."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import email.utils
import gzip
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connectors import rest
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.landing import Landing
from connectors.reading import blocks
from connectors.source import RestOptions, Source, load


class Server(ThreadingHTTPServer):
    """A department: OAuth2 client credentials and one paged path. ``faults`` are used up one a data request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.records = [
            {"gmsfhm": f"{i:06d}", "n": i, "gxsj": f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}Z"} for i in range(25)
        ]
        self.faults: list[Callable[[Handler], bool]] = []
        self.asked: list[dict[str, str]] = []
        self.moments: list[float] = []
        self.authorisations: list[str | None] = []
        self.token, self.tokens, self.token_seconds = "token-1", 0, 300
        self.shrink_before: dict[int, int] = {}
        self.do_not_expire = False  # every token is good, for several sessions at a time
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
        server.moments.append(time.monotonic())
        server.authorisations.append(self.headers["Authorization"])
        if server.faults and server.faults.pop(0)(self):
            return
        if self.headers["Authorization"] != f"Bearer {server.token}" and not server.do_not_expire:
            self.reply(401, b"{}")
            return
        number, size = int(asked["page"]), int(asked["page_size"])
        for _ in range(server.shrink_before.pop(number, 0)):
            server.records.pop(0)
        since = asked.get("updated_since", "")
        window = [r for r in server.records if since <= str(r["gxsj"]) <= asked["updated_until"]]
        self.page(window[(number - 1) * size : number * size], len(window), number, size)

    def page(self, records: list[Any], total: int, number: int, size: int) -> bool:
        page = {"page": number, "page_size": size, "total": total, "records": records}
        return self.reply(200, json.dumps(page).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def connection(server: Server) -> Connection:
    return Connection("sh-ga", server.url, "me", "hush")


def made(**options: Any) -> Source:
    source = load("sh-ga-residents")
    quick = {"page_size": 10, "backoff_seconds": 0.01, "attempts": 3, "requests_per_second": 1000, "columns": ()}
    quick |= {"records": "records", "size_parameter": "page_size"}
    assert isinstance(source.options, RestOptions)
    return source.model_copy(update={"options": source.options.model_copy(update={**quick, **options})})


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


def keys(source: Source, fetched: Any, landing: Landing) -> list[str]:
    return [k for f in fetched.files for b in blocks(source, f, landing) for k in b.table["gmsfhm"].to_pylist()]


def expect(code: str, kind: type[YiciError], source: Source, connection: Connection, landing: Landing) -> YiciError:
    with pytest.raises(kind) as caught:
        rest.fetch(source, connection, None, landing)
    assert caught.value.code == code
    for lang in ("zh", "en"):
        assert caught.value.message(lang) and caught.value.advice(lang)  # type: ignore[arg-type]
    assert "hush" not in str(caught.value)
    return caught.value


def status(code: int, **headers: str) -> Callable[[Handler], bool]:
    return lambda handler: handler.reply(code, b"{}", **headers)


def body(data: bytes, **headers: str) -> Callable[[Handler], bool]:
    return lambda handler: handler.reply(200, data, **headers)


def chunked(handler: Handler, data: bytes, whole: bool = True) -> bool:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data))
    handler.wfile.write(b"0\r\n\r\n" if whole else b"")
    return True


def fine(_: Handler) -> bool:
    return False


def test_pages_land_as_they_came(server: Server, connection: Connection, landing: Landing) -> None:
    source = made()
    seen: list[tuple[int, int | None]] = []
    fetched = rest.fetch(source, connection, None, landing, lambda done, total: seen.append((done, total)))
    assert keys(source, fetched, landing) == [f"{i:06d}" for i in range(25)]
    assert [file.name for file in fetched.files] == [f"sh-ga-residents-{i:06d}.json" for i in (1, 2, 3)]
    assert json.loads(landing.open(fetched.files[2]).read())["records"] == server.records[20:]
    assert seen == [(10, 25), (20, 25), (25, 25)]
    assert (fetched.requests, server.tokens) == (4, 1)
    assert "updated_since" not in server.asked[0]
    assert len({asked["updated_until"] for asked in server.asked}) == 1
    assert "hush" not in str(fetched)
    assert "token" not in str(fetched.request)


def test_second_run_asks_from_the_watermark_less_the_overlap(
    server: Server, connection: Connection, landing: Landing
) -> None:
    first = rest.fetch(made(), connection, None, landing)
    assert first.cursor is not None
    second = rest.fetch(made(), connection, first.cursor, landing)
    (block,) = blocks(made(), second.files[0], landing)
    assert block.table.num_rows == 0
    watermark, since = (
        dt.datetime.fromisoformat(t) for t in (first.cursor["watermark"], server.asked[-1]["updated_since"])
    )
    assert watermark - since == dt.timedelta(minutes=5)
    assert abs(dt.datetime.now(dt.UTC) - watermark) < dt.timedelta(minutes=1)


def test_nothing_changed_is_a_success(server: Server, connection: Connection, landing: Landing) -> None:
    server.records = []
    fetched = rest.fetch(made(), connection, None, landing)
    (block,) = blocks(made(), fetched.files[0], landing)
    assert block.table.num_rows == 0


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(502),
        status(429),
        body(b"<html><body>502 Bad Gateway</body></html>"),
        body(b'{"page": 2, "total": 25, "records": [{"gmsfhm": "0'),
        body(b'{"page": 2, "total": 25, "records": []}', Content_Length="4000", Connection="close"),
        lambda handler: chunked(handler, b'{"page": 2, "total": 25, "records": []}', whole=False),
        lambda handler: bool(handler.connection.close()) or True,
        lambda handler: handler.page(handler.server.records[10:15], 25, 2, 10),
        lambda handler: handler.page(handler.server.records[:10], 25, 1, 10),
        lambda handler: handler.page(handler.server.records[:10], 25, 2, 10),
        lambda handler: handler.page(handler.server.records[15:25], 25, 3, 10),
    ],
)
def test_one_fault_in_the_middle_is_overcome(
    server: Server, connection: Connection, landing: Landing, fault: Callable[[Handler], bool]
) -> None:
    server.faults = [fine, fault]
    source = made(read_seconds=0.5)
    assert keys(source, rest.fetch(source, connection, None, landing), landing) == [f"{i:06d}" for i in range(25)]


@pytest.mark.parametrize(
    ("fault", "code", "kind", "tries"),
    [
        (status(500), "rest-server", RetriableError, 3),
        (status(429), "rest-busy", RetriableError, 3),
        (body(b" <html>"), "rest-html", RetriableError, 3),
        (body(b'{"records": ['), "rest-not-json", RetriableError, 3),
        (body(b'{"records": []}', Content_Length="4000", Connection="close"), "rest-unreachable", RetriableError, 3),
        (lambda handler: handler.page(handler.server.records[:5], 25, 1, 10), "rest-page-count", FatalError, 3),
        (body(b'{"rows": [], "total": 0}'), "rest-form", FatalError, 1),
        (body(b'{"records": [], "total": "many"}'), "rest-form", FatalError, 1),
        (status(404), "rest-status", FatalError, 1),
        (status(403), "rest-forbidden", FatalError, 1),
        (body(b"x" * 5000), "rest-page-too-big", FatalError, 1),
        (body(gzip.compress(bytes(1 << 24)), Content_Encoding="gzip"), "rest-page-too-big", FatalError, 1),
        (body(b"no gzip", Content_Encoding="gzip"), "rest-unusable", FatalError, 1),
        (lambda handler: bool(handler.wfile.write(b"220 mail\r\n")), "rest-unreachable", RetriableError, 3),
    ],
)
def test_lasting_faults(
    server: Server,
    connection: Connection,
    landing: Landing,
    fault: Callable[[Handler], bool],
    code: str,
    kind: type[YiciError],
    tries: int,
) -> None:
    server.faults = [fault] * 10
    expect(code, kind, made(page_bytes=4000, read_seconds=0.5), connection, landing)
    assert len(server.asked) == tries


def test_a_server_that_ignores_the_page_number(server: Server, connection: Connection, landing: Landing) -> None:
    def same(handler: Handler) -> bool:
        page = {"total": 25, "records": handler.server.records[:10]}
        return handler.reply(200, json.dumps(page).encode())

    server.faults = [same] * 10
    expect("rest-page-repeats", FatalError, made(), connection, landing)


def test_byte_order_mark(server: Server, connection: Connection, landing: Landing) -> None:
    server.faults = [body(b'\xef\xbb\xbf{"records": [{"gmsfhm": "1"}], "total": 1}')]
    assert keys(made(), rest.fetch(made(), connection, None, landing), landing) == ["1"]


def test_chunked_and_compressed_pages(server: Server, connection: Connection, landing: Landing) -> None:
    page = b'{"records": [{"gmsfhm": "1"}], "total": 1}'
    for fault in (
        lambda handler: chunked(handler, page),
        body(gzip.compress(page), Content_Encoding="gzip"),
    ):
        server.faults = [fault]
        assert keys(made(), rest.fetch(made(), connection, None, landing), landing) == ["1"]


def test_smaller_pages_than_asked_for(server: Server, connection: Connection, landing: Landing) -> None:
    def capped(handler: Handler) -> bool:
        number = int(handler.server.asked[-1]["page"])
        return handler.page(handler.server.records[(number - 1) * 4 : number * 4], 25, number, 4)

    server.faults = [capped] * 10
    fetched = rest.fetch(made(), connection, None, landing)
    assert keys(made(), fetched, landing) == [f"{i:06d}" for i in range(25)]


def test_records_that_leave_the_window_hide_no_others(server: Server, connection: Connection, landing: Landing) -> None:
    """Two early records are updated while pages are read: everything behind them moves up by two."""
    server.shrink_before = {2: 2}
    fetched = rest.fetch(made(), connection, None, landing)
    assert set(keys(made(), fetched, landing)) == {f"{i:06d}" for i in range(25)}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: Server, connection: Connection, landing: Landing, form: str) -> None:
    def busy(handler: Handler) -> bool:
        later = email.utils.formatdate(time.time() + 2, usegmt=True)
        return handler.reply(429, b"", Retry_After="1" if form == "seconds" else later)

    server.faults = [busy]
    rest.fetch(made(), connection, None, landing)
    assert server.moments[1] - server.moments[0] > 0.9


def test_retry_after_too_long_is_left_to_the_runner(server: Server, connection: Connection, landing: Landing) -> None:
    server.faults = [status(429, Retry_After="86400")]
    started = time.monotonic()
    error = expect("rest-busy", RetriableError, made(), connection, landing)
    assert "86400" in error.message("en")
    assert time.monotonic() - started < 5


def test_slow_drip_meets_the_deadline(server: Server, connection: Connection, landing: Landing) -> None:
    """Every byte arrives within the read time-out, the whole never does."""

    def drip(handler: Handler) -> bool:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        return True

    def drip_headers(handler: Handler) -> bool:
        with contextlib.suppress(OSError):
            for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
                handler.wfile.write(bytes([letter]))
                time.sleep(0.05)
        return True

    def drip_chunk_size(handler: Handler) -> bool:
        """One line that never ends, so no read of the body ever returns."""
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")
            for _ in range(100):
                handler.wfile.write(b"x")
                time.sleep(0.05)
        return True

    for fault in (drip, drip_headers, drip_chunk_size):
        server.faults = [fault] * 2
        started = time.monotonic()
        expect("rest-slow", RetriableError, made(request_seconds=0.4, attempts=2), connection, landing)
        assert time.monotonic() - started < 3


def test_silence_meets_the_read_time_out(server: Server, connection: Connection, landing: Landing) -> None:
    server.faults = [lambda _: bool(time.sleep(1)) or True] * 2
    expect("rest-slow", RetriableError, made(read_seconds=0.2, attempts=2), connection, landing)


def test_token_is_renewed_once_on_401(server: Server, connection: Connection, landing: Landing) -> None:
    def revoked(handler: Handler) -> bool:
        handler.server.token = "revoked"
        return False

    server.faults = [fine, revoked]
    fetched = rest.fetch(made(), connection, None, landing)
    assert len(keys(made(), fetched, landing)) == 25
    assert server.tokens == 2

    server.faults = [status(401)] * 10
    expect("rest-unauthorised", FatalError, made(), connection, landing)


def test_token_is_renewed_when_it_ends(server: Server, connection: Connection, landing: Landing) -> None:
    server.token_seconds = 0
    rest.fetch(made(), connection, None, landing)
    assert server.tokens == 4
    assert server.authorisations == ["Bearer token-2", "Bearer token-3", "Bearer token-4"]


def test_wrong_secret(server: Server, landing: Landing) -> None:
    expect("rest-login", FatalError, made(), Connection("sh-ga", server.url, "me", "hush-hush"), landing)
    assert server.asked == []


def test_token_goes_to_no_other_host(server: Server, connection: Connection, landing: Landing) -> None:
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.faults = [status(307, Location=f"http://localhost:{other.server_port}/residents")]
        error = expect("rest-redirected", FatalError, made(), connection, landing)
        other.shutdown()
        thread.join()
        assert other.asked == []
    assert "localhost" in error.message("en")


def test_the_body_of_a_redirect_is_not_read(server: Server, connection: Connection, landing: Landing) -> None:
    def endless(handler: Handler) -> bool:
        with contextlib.suppress(OSError):
            handler.wfile.write(
                b"HTTP/1.1 302 Found\r\nLocation: http://[broken\r\nContent-Length: 999999999999\r\n\r\n"
            )
            while True:
                handler.wfile.write(bytes(1000))
                time.sleep(0.01)
        return True

    server.faults = [endless]
    started = time.monotonic()
    expect("rest-redirected", FatalError, made(request_seconds=5), connection, landing)
    assert time.monotonic() - started < 2


def test_unreachable(landing: Landing) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        expect("rest-unreachable", RetriableError, made(), Connection("sh-ga", url, "me", "hush"), landing)


def test_rate(server: Server, connection: Connection, landing: Landing) -> None:
    rest.fetch(made(requests_per_second=10), connection, None, landing)
    assert server.moments[2] - server.moments[0] > 0.19


def test_proxy_of_the_environment_is_not_used(
    server: Server, connection: Connection, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert len(rest.fetch(made(), connection, None, landing).files) == 3


def test_proxy_of_the_connection_is_used(server: Server, landing: Landing) -> None:
    """The server plays the proxy: nothing else could answer for this name."""
    connection = Connection("sh-ga", "http://department.invalid", "me", "hush", {"proxy": server.url})
    assert len(rest.fetch(made(), connection, None, landing).files) == 3


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of 127.0.0.1 and its key, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(hours=1))
    made = builder.add_extension(address, critical=True).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def test_certificate_of_the_department(
    server: Server, landing: Landing, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    trusting = Connection("sh-ga", url, "me", "hush", {"ca_file": str(certificate)})
    assert len(rest.fetch(made(), trusting, None, landing).files) == 3
    assert "certificate" in [step.step for step in rest.check(made(), trusting) if step.ok]

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    doubting = Connection("sh-ga", url, "me", "hush")
    error = expect("rest-unreachable", RetriableError, made(attempts=1), doubting, landing)
    assert "SSLError" in error.message("en")

    absent = Connection("sh-ga", url, "me", "hush", {"ca_file": "/no/such/file.pem"})
    expect("rest-unusable", FatalError, made(), absent, landing)
    last = rest.check(made(), absent)[-1]
    assert (last.step, last.ok) == ("certificate", False)


def test_sources_are_fetched_side_by_side(server: Server, connection: Connection, tmp_path: Path) -> None:
    """Each with its own session and deadline, in threads as a task runner may use them."""

    def one(number: int) -> list[str]:
        landing = Landing(tmp_path / str(number))
        return keys(made(), rest.fetch(made(request_seconds=5), connection, None, landing), landing)

    server.do_not_expire = True
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(4))) == [[f"{i:06d}" for i in range(25)]] * 4


def test_check(server: Server, connection: Connection) -> None:
    source = made(columns=("gmsfhm", "n", "gxsj"))
    steps = rest.check(source, connection)
    assert [(step.step, step.ok) for step in steps] == [
        ("name", True), ("port", True), ("login", True), ("record", True), ("columns", True),
    ]  # fmt: skip
    assert "hush" not in str(steps)
    assert "000000" not in str(steps), "a check shows no record"


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"url": "http://no-such-host.invalid"}, "name"),
        ({"url": "ftp://127.0.0.1"}, "name"),
        ({"url": "http://127.0.0.1:1"}, "port"),
        ({"password": "wrong"}, "login"),
        ({"columns": ("gmsfhm", "xm")}, "columns"),
        ({"path": "/residents", "fault": status(403)}, "record"),
        ({"fault": body(b'{"records": [5], "total": 1}')}, "record"),
    ],
)
def test_check_names_the_step_that_fails(server: Server, change: dict[str, Any], step: str) -> None:
    options = {key: change[key] for key in ("columns", "path") if key in change}
    server.faults = [change["fault"]] if "fault" in change else []
    connection = Connection("sh-ga", change.get("url", server.url), "me", change.get("password", "hush"))
    last = rest.check(made(attempts=1, **options), connection)[-1]
    assert (last.step, last.ok) == (step, False)
    assert last.detail and last.advice


def test_check_of_a_certificate(server: Server) -> None:
    """A server without TLS behind an https address."""
    connection = Connection("sh-ga", server.url.replace("http:", "https:"), "me", "hush")
    assert [(step.step, step.ok) for step in rest.check(made(connect_seconds=1), connection)][-1] == (
        "certificate",
        False,
    )
