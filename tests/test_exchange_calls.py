"""A call is over at its deadline, whatever the other side does to make it last."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import RetriableError
from hub.exchange import calls, certificates, tls, wire

SECONDS = 1.0
GRACE = 3.0  # a busy machine
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n"


def dripping(begin: bytes, each: bytes) -> Callable[[socket.socket], None]:
    def say(line: socket.socket) -> None:
        line.sendall(begin)
        while True:
            line.sendall(each)
            time.sleep(0.05)

    return say


def silent(line: socket.socket) -> None:
    while line.recv(65536):
        pass


def deaf(line: socket.socket) -> None:
    time.sleep(SECONDS + GRACE)


SECURED: dict[str, Callable[[socket.socket], None]] = {
    "nothing": silent,
    "one header line after another": dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "a header line that does not end": dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
    "a body byte by byte": dripping(HEAD, b"a"),
    "chunk by chunk": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "wait": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "reads nothing": deaf,
}
PLAIN: dict[str, Callable[[socket.socket], None]] = {
    "no handshake": silent,
    "a handshake byte by byte": dripping(b"\x16\x03\x03\x40\x00\x02\x00\x3f\x00", b"\x03"),
}


@dataclass
class Ends:
    folder: Path
    pem: str

    @contextlib.contextmanager
    def serving(self, say: Callable[[socket.socket], None], *, secured: bool) -> Iterator[str]:
        """The address of a peer with the proper certificate that does as ``say``."""
        context = tls.server_context(self.folder / "peer", [(self.folder / "own.pem").read_text()])
        context.sslsocket_class = ssl.SSLSocket

        def speak(line: socket.socket) -> None:
            with contextlib.suppress(OSError), line:
                if not secured:
                    return say(line)
                with context.wrap_socket(line, server_side=True) as wrapped:
                    wrapped.recv(1)
                    say(wrapped)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listening.accept()
                    line.settimeout(20)
                    threading.Thread(target=speak, args=(line,), daemon=True).start()

        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=accept, daemon=True).start()
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"

    def post(self, address: str, data: bytes = b"{}", seconds: float = SECONDS) -> bytes:
        return wire.post("zj", address, self.folder / "own", [self.pem], data, seconds)

    def timed_out(self, address: str, data: bytes = b"{}") -> None:
        began = time.monotonic()
        with pytest.raises(RetriableError) as away:
            self.post(address, data)
        assert time.monotonic() - began < SECONDS + GRACE
        assert (away.value.code, away.value.values["reason"]) == ("partner-away", "timeout")


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    for name in ("own", "peer"):
        made = certificates.make(name, dt.datetime.now(dt.UTC))
        (tmp_path / name).write_text(made.private + made.pem)
        (tmp_path / f"{name}.pem").write_text(made.pem)
    return Ends(tmp_path, (tmp_path / "peer.pem").read_text())


@pytest.mark.parametrize("says", SECURED)
def test_whoever_answers_slowly_is_left_at_the_deadline(ends: Ends, says: str) -> None:
    with ends.serving(SECURED[says], secured=True) as address:
        ends.timed_out(address, bytes(8 << 20) if says == "reads nothing" else b"{}")


@pytest.mark.parametrize("says", PLAIN)
def test_so_is_whoever_is_slow_before(ends: Ends, says: str) -> None:
    with ends.serving(PLAIN[says], secured=False) as address:
        ends.timed_out(address)


def test_the_deadline_is_that_of_the_call_not_of_the_connection(ends: Ends) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    lines: list[Any] = []

    def say(line: socket.socket) -> None:
        lines.append(line)
        told = line.makefile("rb")
        while True:
            while told.readline().strip():
                pass
            if told.read(2) != b"{}":
                break
            line.sendall(body)
        deaf(line)

    with ends.serving(say, secured=True) as address:
        for _ in range(2):
            assert ends.post(address, seconds=0.7) == b"ok"
            time.sleep(0.5)
        assert ends.post(address) == b"ok" and len(lines) == 1
        ends.timed_out(address, b"[]")


def test_a_name_that_cannot_be_looked_up_in_time(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    real, free = socket.getaddrinfo, threading.Event()

    def slow(*given: Any, **named: Any) -> Any:
        if not named.get("flags"):
            free.wait(SECONDS + GRACE)
        return real(*given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    ends.timed_out("https://localhost:1")
    free.set()


def test_every_address_of_a_name_together(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def nobody(place: tuple[str, int], seconds: float) -> socket.socket:
        tried.append(seconds)
        time.sleep(min(seconds, 0.4))
        raise TimeoutError

    monkeypatch.setattr(calls, "_resolved", lambda host, port: [("192.0.2.1", port)] * 100)
    monkeypatch.setattr(socket, "create_connection", nobody)
    ends.timed_out("https://many.example:1")
    assert len(tried) < 10 and all(seconds <= SECONDS for seconds in tried)
