"""connectors/reach.py: the first steps of a check end at the first that fails, and say which."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from connectors import reach
from connectors.connections import Connection
from connectors.errors import FatalError
from connectors.source import Source, load


@pytest.fixture
def source() -> Source:
    return load("sh-ga-residents")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def steps(source: Source, url: str) -> list[tuple[str, bool]]:
    return [(step.step, step.ok) for step in reach.steps(source, Connection("c", url), 2)]


@pytest.mark.parametrize(("url", "expected"), [
    ("http://a.example", ("a.example", 80, False)),
    ("https://a.example/below", ("a.example", 443, True)),
    ("https://a.example:8443", ("a.example", 8443, True)),
    ("http://[::1]:8080/x", ("::1", 8080, False)),
])  # fmt: skip
def test_addresses(url: str, expected: tuple[str, int, bool]) -> None:
    assert reach.address(Connection("c", url)) == expected


@pytest.mark.parametrize("url", ["", "a.example", "ftp://a.example", "http://", "http://a:99999", "http://[::1"])
def test_what_is_no_address(source: Source, url: str) -> None:
    with pytest.raises(FatalError) as caught:
        reach.address(Connection("c", url))
    assert caught.value.code == "rest-address"
    assert steps(source, url) == [("name", False)]


def test_a_port_that_is_open(source: Source, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    found = list(reach.steps(source, Connection("c", f"http://127.0.0.1:{port}"), 2))
    assert [(step.step, step.ok) for step in found] == [("name", True), ("port", True)]
    assert found[0].detail == "127.0.0.1: 127.0.0.1" and found[1].detail == f"127.0.0.1:{port}"


def test_a_port_that_is_closed(source: Source) -> None:
    with socket.socket() as free:  # bound, so nobody else takes it, and not listening
        free.bind(("127.0.0.1", 0))
        assert steps(source, f"https://127.0.0.1:{free.getsockname()[1]}") == [("name", True), ("port", False)]


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".invalid"])
def test_a_name_nobody_knows(source: Source, host: str) -> None:
    [step] = reach.steps(source, Connection("c", f"https://{host}"), 2)
    assert (step.step, step.ok) == ("name", False) and host in step.detail and step.advice


def test_who_does_not_speak_tls_has_no_certificate(source: Source, listener: socket.socket) -> None:
    import threading

    def answer() -> None:
        wire, _ = listener.accept()
        with wire:
            wire.recv(64)
            wire.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    assert steps(source, url) == [("name", True), ("port", True), ("certificate", False)]
    thread.join(5)
