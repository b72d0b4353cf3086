"""TLS between hubs: both sides show a certificate, and each takes only those it has pinned.

The listener makes the context of every connection anew from the peers as they are then, so that one added or removed counts
at once. There are no sessions to resume: a certificate is looked at each time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn

from hub.api.patience import Patient

log = logging.getLogger("yici.exchange")

HANDSHAKE_SECONDS = 10
HANDSHAKES = 256  # under way at once; who is slow at it takes none of the places of those who are through
CONNECTIONS = 64  # of one peer at once
EXTENSION = "tls"


def server_context(own: Path, pinned: Iterable[str]) -> ssl.SSLContext:
    """For one that is spoken to. ``own``: PEM file with key and certificate; ``pinned``: PEM of whom it lets in."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, own, pinned)
    context.num_tickets = 0
    return context


def client_context(own: Path, pinned: Iterable[str]) -> ssl.SSLContext:
    """For one that speaks. Names in certificates mean nothing: a hub is who has the pinned key."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, own, pinned)


def _context(side: int, own: Path, pinned: Iterable[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a pinned certificate is trusted whoever issued it
    context.load_cert_chain(own)
    if together := "\n".join(pinned):
        context.load_verify_locations(cadata=together)
    return context


class Guests:
    """How many connections each peer has. ``whose``: the peer of a certificate's fingerprint."""

    def __init__(self, whose: Callable[[str], str]) -> None:
        self.whose = whose
        self.inside: Counter[str] = Counter()

    def enter(self, peer: str) -> bool:
        """Whether there is a place for one more."""
        if self.inside[peer] >= CONNECTIONS:
            return False
        self.inside[peer] += 1
        return True

    def leave(self, peer: str) -> None:
        self.inside[peer] -= 1
        self.inside += Counter()  # keeps no zeros


class Protocol(Patient):
    """HTTP as uvicorn speaks it, and in ``scope["extensions"]["tls"]`` the fingerprint of the certificate that was shown,
    SHA-256 in hex, and whose it is. A peer that has too many connections gets no more."""

    guests: Guests
    shown: str | None = None
    peer: str | None = None  # None: not inside

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        wire = transport.get_extra_info("ssl_object")
        self.shown = sha256(wire.getpeercert(binary_form=True)).hexdigest()
        peer = self.guests.whose(self.shown)
        if self.guests.enter(peer):
            self.peer = peer
        else:
            log.warning("too many connections: %s", peer)
            self.loop.call_soon(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None:
            self.guests.leave(self.peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"fingerprint": self.shown, "peer": self.peer}}


class Listener:
    """Accepts connections on ``listening`` and gives each a context of its own. As :class:`asyncio.Server` to uvicorn."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        listening.setblocking(False)
        self.listening, self.protocol, self.context = listening, protocol, context
        self.loop = asyncio.get_running_loop()
        self.free = asyncio.Semaphore(HANDSHAKES)
        self.greeting: set[asyncio.Task[None]] = set()
        self.threads = ThreadPoolExecutor(2, "exchange-tls")  # the store is asked, never by the loop itself
        self.accepting = self.loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            await self.free.acquire()
            try:
                wire, _ = await self.loop.sock_accept(self.listening)
            except OSError as error:  # too many open files, a caller that is gone already
                self.free.release()
                log.warning("accept: %s", type(error).__name__)
                await asyncio.sleep(0.1)
                continue
            except BaseException:
                self.free.release()
                raise
            task = self.loop.create_task(self._greet(wire))
            self.greeting.add(task)
            task.add_done_callback(self.greeting.discard)

    async def _greet(self, wire: socket.socket) -> None:
        try:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = await self.loop.run_in_executor(self.threads, self.context)
            await self.loop.connect_accepted_socket(
                self.protocol, wire, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=2
            )
        except ssl.SSLError as error:
            log.warning("refused at TLS: %s", error.reason)
            wire.close()
        except Exception as error:
            log.warning("no TLS: %s", getattr(error, "code", type(error).__name__))
            wire.close()
        finally:
            self.free.release()

    def close(self) -> None:
        self.accepting.cancel()
        for task in self.greeting:
            task.cancel()
        self.listening.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(self.accepting, *self.greeting, return_exceptions=True)
        self.threads.shutdown(wait=False)


class Server(uvicorn.Server):
    """uvicorn over :class:`Listener`."""

    def __init__(
        self, config: uvicorn.Config, context: Callable[[], ssl.SSLContext], whose: Callable[[str], str] = str
    ) -> None:
        super().__init__(config)
        self.context, self.guests = context, Guests(whose)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()

        def protocol() -> asyncio.Protocol:
            made: Any = self.config.http_protocol_class
            answer: Protocol = made(self.config, self.server_state, self.lifespan.state)
            answer.guests = self.guests
            return answer

        self.servers: list[Any] = [Listener(listening, protocol, self.context) for listening in sockets or []]
        self.started = True
