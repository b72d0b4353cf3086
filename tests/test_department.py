"""connectors/department.py, the wire below both kinds of paging, against a real HTTP server that can misbehave."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connectors import rest
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.landing import Landing
from tests.department import Fault, Handler, Server, body, chunked, connected, expect, fine, keys, made, served, status


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as found:
        yield found


@pytest.fixture
def connection(server: Server) -> Connection:
    return connected(server)


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


@pytest.mark.parametrize(
    ("fault", "code", "kind", "tries"),
    [
        (status(500), "rest-server", RetriableError, 3),
        (status(429), "rest-busy", RetriableError, 3),
        (body(b'{"records": []}', Content_Length="4000", Connection="close"), "rest-unreachable", RetriableError, 3),
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
    fault: Fault,
    code: str,
    kind: type[YiciError],
    tries: int,
) -> None:
    server.faults = [fault] * 10
    expect(code, kind, made(page_bytes=4000, read_seconds=0.5), connection, landing)
    assert len(server.asked) == tries


def test_chunked_and_compressed_pages(server: Server, connection: Connection, landing: Landing) -> None:
    page = b'{"records": [{"gmsfhm": "1"}], "total": 1}'
    for fault in (
        lambda handler: chunked(handler, page),
        body(gzip.compress(page), Content_Encoding="gzip"),
    ):
        server.faults = [fault]
        assert keys(made(), rest.fetch(made(), connection, None, landing), landing) == ["1"]


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
