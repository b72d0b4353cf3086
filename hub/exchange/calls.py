"""HTTPS connections on which a call is over at its deadline, however slowly the other side goes on.

A time-out of a socket begins anew with every byte. Here each step - name, connection, handshake, every piece sent or read, header
lines among them - gets what is left of the whole call.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import NewConnectionError

CONNECT_SECONDS = 5.0  # for one address of a name, and for the handshake

_call = threading.local()  # a call is made by one thread, and makes one connection at a time


@contextlib.contextmanager
def until(deadline: float) -> Iterator[None]:
    """What this thread does on such connections is over at ``deadline`` of ``time.monotonic()``; then TimeoutError."""
    _call.deadline = deadline
    try:
        yield
    finally:
        del _call.deadline


def left(most: float = math.inf) -> float:
    """Seconds that are left of the call, ``most`` at most. TimeoutError when there are none."""
    seconds: float = min(_call.deadline - time.monotonic(), most)
    if seconds <= 0:
        raise TimeoutError
    return seconds


class Socket(ssl.SSLSocket):
    """What a call goes through: to be the ``sslsocket_class`` of its context. A single call of these is bounded as a whole."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(left(CONNECT_SECONDS))
        super().do_handshake(block)

    def recv_into(self, *given: Any, **named: Any) -> int:
        self.settimeout(left())
        return super().recv_into(*given, **named)

    def send(self, *given: Any, **named: Any) -> int:
        self.settimeout(left())
        return super().send(*given, **named)


class Connection(HTTPSConnection):
    """To the first that answers of the addresses that the host's name has."""

    def _new_conn(self) -> socket.socket:
        reason: Exception = OSError()
        try:
            for place in _resolved(self._dns_host, self.port):
                try:
                    made = socket.create_connection(place, left(CONNECT_SECONDS))
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return made
                except OSError as error:
                    reason = error
        except (OSError, UnicodeError) as error:
            reason = error
        raise NewConnectionError(self, type(reason).__name__) from reason


def _resolved(host: str, port: int) -> list[tuple[Any, ...]]:
    """Addresses of ``host``. The resolver knows no time-out: a name is left to a thread that nobody waits for any longer."""
    with contextlib.suppress(socket.gaierror):
        return [_place(each) for each in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)][:1]
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    looking = threading.Thread(target=look, name="yici-name", daemon=True)
    looking.start()
    looking.join(left())
    if not found:
        raise TimeoutError
    if isinstance(found[0], Exception):
        raise found[0]
    return [_place(each) for each in found[0]]


def _place(entry: Any) -> tuple[Any, ...]:
    return tuple(entry[4][:2])
