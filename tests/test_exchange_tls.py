"""The listener by itself, on both event loops: who gets in is decided anew with each connection."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import uvicorn

from hub.api import patience
from hub.exchange import certificates, tls
from hub.exchange.certificates import Made


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = scope["extensions"]["tls"]["fingerprint"].encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


class Door:
    """A listener that lets in ``pinned``, and its certificate."""

    def __init__(self, folder: Path, loop: Any) -> None:
        self.folder = folder
        self.own, self.peer, self.stranger = (self.made(name) for name in ("own", "peer", "stranger"))
        self.pinned = [self.peer.pem]
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listening.getsockname()[1]
        config = uvicorn.Config(
            application, http=tls.Protocol, lifespan="off", log_level="error", access_log=False, loop=loop,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self.server = tls.Server(config, self.context)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True)

    def made(self, name: str) -> Made:
        made = certificates.make(name, dt.datetime.now(dt.UTC))
        (self.folder / name).write_text(made.private + made.pem)
        return made

    def context(self) -> ssl.SSLContext:
        if not self.pinned:
            raise RuntimeError("the store is away")
        return tls.server_context(self.folder / "own", self.pinned)

    def pool(self, who: str) -> urllib3.HTTPSConnectionPool:
        context = tls.client_context(self.folder / who, [self.own.pem])
        return urllib3.HTTPSConnectionPool(
            "127.0.0.1", self.port, ssl_context=context, assert_hostname=False, retries=False, timeout=20
        )

    def line(self, who: str) -> ssl.SSLSocket:
        """A connection of ``who`` by hand."""
        context = tls.client_context(self.folder / who, [self.own.pem])
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=20))

    def seen(self, who: str) -> str | None:
        """The fingerprint by which ``who`` is known inside; None: it does not get in."""
        try:
            return self.pool(who).request("GET", "/").data.decode()
        except urllib3.exceptions.HTTPError:
            return None


@pytest.fixture(params=["uvloop", "asyncio"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path, request.param)
    made.thread.start()
    while not made.server.started:
        assert made.thread.is_alive()
        time.sleep(0.01)
    yield made
    made.server.should_exit = True
    made.thread.join(20)
    assert not made.thread.is_alive()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", made.port), timeout=5)


def test_who_is_pinned_counts_from_the_next_connection_on(door: Door) -> None:
    assert door.seen("peer") == door.peer.fingerprint and door.seen("stranger") is None
    door.pinned[:] = [door.stranger.pem]
    assert door.seen("peer") is None and door.seen("stranger") == door.stranger.fingerprint
    door.pinned[:] = []
    assert door.seen("peer") is None and door.seen("stranger") is None
    door.pinned[:] = [door.peer.pem, door.stranger.pem]
    assert door.seen("peer") == door.peer.fingerprint and door.seen("stranger") == door.stranger.fingerprint


def test_a_connection_keeps_its_name_over_many_questions(door: Door) -> None:
    pool = door.pool("peer")
    assert {pool.request("GET", "/").data.decode() for _ in range(5)} == {door.peer.fingerprint}
    assert pool.num_connections == 1


def test_what_a_peer_signs_for_others_opens_nothing(door: Door) -> None:
    """A certificate made with the key of a pinned one is another certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    parent = x509.load_pem_x509_certificate(door.peer.pem.encode())
    signer: Any = serialization.load_pem_private_key(door.peer.private.encode(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    child = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "child")]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(parent.not_valid_before_utc)
        .not_valid_after(parent.not_valid_after_utc)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (door.folder / "child").write_bytes(private + child.public_bytes(serialization.Encoding.PEM))
    assert door.seen("child") is None


def test_no_session_is_resumed(door: Door) -> None:
    context = tls.client_context(door.folder / "peer", [door.own.pem])
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", door.port), timeout=20) as plain,
            context.wrap_socket(plain, session=session) as wire,
        ):
            wire.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert door.peer.fingerprint.encode() in wire.recv(4096) + wire.recv(4096)
            assert not wire.session_reused
            session = wire.session
    assert session is None or not session.has_ticket


def test_no_older_tls(door: Door) -> None:
    context = tls.client_context(door.folder / "peer", [door.own.pem])
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_who_says_nothing_or_nonsense_is_in_nobodys_way(door: Door) -> None:
    silent = [socket.create_connection(("127.0.0.1", door.port), timeout=20) for _ in range(30)]
    for number, wire in enumerate(silent):
        if number % 2:
            wire.sendall(b"\x16\x03\x01" + bytes(200))
    began = time.monotonic()
    assert door.seen("peer") == door.peer.fingerprint
    assert time.monotonic() - began < tls.HANDSHAKE_SECONDS / 2
    for wire in silent:
        wire.close()
    assert door.seen("peer") == door.peer.fingerprint


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def ended(line: ssl.SSLSocket) -> bool:
    """Whether the other side has closed it, or does within a while; what it said before is passed over."""
    line.settimeout(5)
    try:
        while line.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_one_peer_takes_no_more_than_its_places(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "CONNECTIONS", 3)
    door.pinned.append(door.stranger.pem)
    lines = [door.line("peer") for _ in range(8)]
    for line in lines[:3]:
        line.sendall(GET)
        assert door.peer.fingerprint.encode() in line.recv(4096) + line.recv(4096)
    assert all(ended(line) for line in lines[3:])
    assert door.seen("peer") is None and door.seen("stranger") == door.stranger.fingerprint
    for line in lines[:3]:
        line.sendall(GET)  # what is inside stays
        assert line.recv(4096)
        line.close()
    deadline = time.monotonic() + 10
    while door.seen("peer") is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert door.seen("peer") == door.peer.fingerprint
    assert door.server.guests.inside.total() <= 2


def test_who_is_inside_and_asks_nothing_is_not_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.5)
    silent, half, blank, rest = (door.line("peer") for _ in range(4))
    half.sendall(GET[:-2])
    for line, then in ((blank, b""), (rest, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")):
        line.sendall(then or GET)
        assert line.recv(4096)
        line.sendall(b"\r\n")  # no request, or of one that was answered
    assert all(ended(line) for line in (silent, half, blank, rest))
    assert door.seen("peer") == door.peer.fingerprint
