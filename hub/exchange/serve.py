"""The exchange as a server: HTTPS with certificates on both sides, ``POST /v1/exchange`` and nothing else but ``GET /healthz``.

Whatever is signed is answered with 200 and a signed reply; only what cannot be replied to (too large, too slow, no message at
all, a hub that is busy or without its store) is a plain problem document.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import logging
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import sqlalchemy as sa

from connectors import envelope
from connectors.errors import FatalError, YiciError
from hub import database, problems, signing
from hub.api.serve import GENERATIONS, listen
from hub.exchange import keys as own_keys
from hub.exchange import kinds, ledger, peers, service, tls
from hub.exchange.upkeep import Upkeep

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("yici.exchange")
T = TypeVar("T")

PATH = "/v1/exchange"
WORKERS = 8  # messages worked on at once, each with a connection to the store
WAITING = 64  # beside these
SHARE = 32  # of one peer, worked on or waiting
TURNS = 6  # of one peer, worked on: the others need not wait for it
BODY_SECONDS = 20.0
BUFFERED = 128 * 1024 * 1024  # bytes of all messages that are on their way in
CONNECTIONS = 512  # of all; of one peer: hub.exchange.tls


class Application:
    """The ASGI application. The store may be away when it starts."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(WORKERS, "exchange")
        self.under_way: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()  # since it was last recorded
        self.turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(TURNS))
        self.buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz" and scope["method"] == "GET":
            await _send(send, 200, "application/json", b'{"status":"alive"}')
        elif scope["path"] != PATH:
            await _problem(send, "page-unknown")
        elif scope["method"] != "POST":
            await _problem(send, "method-not-allowed", more=[(b"allow", b"POST")])
        else:
            who = scope["extensions"][tls.EXTENSION]
            await self._exchange(who["peer"], who["fingerprint"], receive, send)

    async def _exchange(self, whose: str, shown: str, receive: Receive, send: Send) -> None:
        if self.under_way.total() >= WORKERS + WAITING or self.under_way[whose] >= SHARE:
            self.turned_away[whose] += 1
            await _problem(send, "hub-busy", more=_CLOSE)
            return
        self.under_way[whose] += 1
        try:
            if times := self.turned_away.pop(whose, 0):
                await self._work(_unread, shown, "hub-busy", {"times": times})
            await self._answer(whose, shown, receive, send)
        except YiciError as error:
            await _problem(send, problems.code_of(error))
        except sa.exc.SQLAlchemyError as error:
            log.error("%s", type(error).__name__)
            await _problem(send, "store-unavailable")
        finally:
            self.under_way[whose] -= 1
            self.under_way += Counter()  # keeps no zeros

    async def _answer(self, whose: str, shown: str, receive: Receive, send: Send) -> None:
        code = ""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                wire = await self._body(receive)
        except TimeoutError:
            code = "body-slow"
        except OverflowError:
            code = "body-too-large"
        except MemoryError:
            code = "hub-busy"
        if code:
            await self._work(_unread, shown, code, {})
            await _problem(send, code, {"seconds": int(BODY_SECONDS), "limit": envelope.LIMIT}, _CLOSE)
        elif wire is not None:
            came = dt.datetime.now(dt.UTC)
            async with self.turns[whose]:
                reply = await self._work(_receive, wire, shown, came)
            await _send(send, 200, envelope.MEDIA_TYPE, reply)

    async def _work(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole message; None when the caller has gone. OverflowError beyond the limit, MemoryError beyond that of all."""
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                size += len(part)
                self.buffered += len(part)
                if size > envelope.LIMIT:
                    raise OverflowError
                if self.buffered > BUFFERED:
                    raise MemoryError
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
        finally:
            self.buffered -= size


def _receive(wire: bytes, shown: str | None, came: dt.datetime) -> bytes:
    return service.receive(database.engine(), wire, shown, came)


def _unread(shown: str | None, code: str, detail: dict[str, Any]) -> None:
    service.unread(database.engine(), shown, code, detail)


async def _problem(
    send: Send, code: str, values: dict[str, object] | None = None, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    told = problems.document(code, "en", values)
    retry = [(b"retry-after", b"5")] if told["status"] == 503 else []
    await _send(send, told["status"], problems.MEDIA_TYPE, orjson.dumps(told), [*retry, *more])


async def _send(send: Send, status: int, kind: str, body: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_CLOSE = [(b"connection", b"close")]  # the rest of the body is not read any more


class Doors:
    """The TLS context for whoever is a peer now; the same one as long as nothing changes. And whose a certificate is."""

    def __init__(self) -> None:
        self.known: tuple[bytes, ssl.SSLContext] | None = None
        self.owners: dict[str, str] = {}

    def context(self) -> ssl.SSLContext:
        now = dt.datetime.now(dt.UTC)
        own = own_keys.own()
        with database.engine().connect() as connection:
            pins = peers.pinned(connection, now)
        self.owners = _owners(pins)
        pems = [pin.pem for pin in pins]
        pems += [entry.public for entry in own.certificates if entry.valid(now)]  # of this hub's own look at itself
        file = own.certificate(now)
        mark = sha256("\n".join([str(file), *sorted(pems)]).encode()).digest()
        if self.known is None or self.known[0] != mark:
            self.known = mark, tls.server_context(file, pems)
        return self.known[1]

    def whose(self, fingerprint: str) -> str:
        """The peer's name: what one has at once is counted over all its certificates."""
        return self.owners.get(fingerprint, fingerprint)


def _owners(pins: Iterable[peers.Pinned]) -> dict[str, str]:
    """By fingerprint. One that several say to be theirs is nobody's: none can use up what another has."""
    owners: dict[str, str] = {}
    for pin in pins:
        owners[pin.fingerprint] = pin.peer if owners.get(pin.fingerprint, pin.peer) == pin.peer else pin.fingerprint
    return owners


def server() -> tls.Server:
    """The server, to be run on sockets that listen. FatalError as :func:`hub.signing.publisher`."""
    import uvicorn

    signing.publisher()
    kinds.register()
    config = uvicorn.Config(
        Application(),
        http=tls.Protocol,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=10,
        log_level="warning",
        lifespan="off",
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
    )
    doors = Doors()
    return tls.Server(config, doors.context, doors.whose)


def serve(host: str, port: int) -> None:
    """Serve other hubs until interrupted, with what goes on beside it: the chain of the ledger, what peers have to be told.

    FatalError ``port-taken``, ``store-…``, and as :func:`hub.signing.publisher`.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    running = server()
    listening = listen(host, port)
    beside: tuple[ledger.Chainer, Upkeep] = ledger.Chainer(_store()), Upkeep()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GENERATIONS)
    for thread in beside:
        thread.start()
    try:
        with listening:
            running.run(sockets=[listening])
    finally:
        for thread in beside:
            thread.stop()


def _store() -> sa.Engine:
    """The store; an external one may be away for a while when the machine starts."""
    while True:
        try:
            return database.engine()
        except FatalError as error:
            if error.code != "store-unreachable":
                raise
            log.warning("%s", error.code)
            time.sleep(2)
