"""The way that nearly every lookup takes: ``POST /v1/lookups`` in front of the framework.

What is in order is answered here, over :mod:`hub.api.lanes`. Everything else (no token, a wrong question, an ``as_of``, a store
that is away) goes on to the route of the same address, which does the same one question at a time and says what is wrong.
So this only ever makes a right answer come sooner.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import time
import weakref
from collections.abc import Callable, Generator
from typing import Any, cast

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors import messages
from connectors.errors import UsageError, YiciError
from connectors.messages import Language
from hub import answers, catalogue, database, mentions, tokens
from hub.answers import Asked, Question
from hub.api import bodies, language
from hub.api.envelope import BODY_SECONDS
from hub.api.lanes import Lanes, Waiting
from hub.api.lookups import Lookup
from hub.api.metrics import Metrics
from hub.api.rates import TRIED, Rates
from hub.api.responses import from_error, problem
from hub.home import KeyedHash, keyed_hash
from hub.tokens import Bearer
from mappings.items import Item

log = logging.getLogger("yici.api")

ADDRESS = "/v1/lookups"
LONGEST = 16 * 1024  # bytes of a body that is tried here
TOKENS_KEPT = 10_000
LONGEST_TOKEN = 2048  # bytes: ours are shorter


class Hot:
    """ASGI application in front of ``app``."""

    def __init__(self, app: ASGIApp, metrics: Metrics, rates: Rates) -> None:
        self.app = app
        self.metrics = metrics
        self.rates = rates
        self.answered = metrics.requests.labels("POST", ADDRESS, "200")
        self.language = messages.language()
        self.lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lanes] = weakref.WeakKeyDictionary()
        self.bearers: dict[bytes, Bearer] = {}
        self.hashing: KeyedHash | None = None
        self.on = os.environ.get("YICI_LANES", "1") != "0"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http" or scope["path"] != ADDRESS or scope["method"] != "POST" or not self.on or TRIED in scope
        ):  # fmt: skip
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        try:
            first = await _soon(receive)
        except TimeoutError:
            await problem("body-slow", language.of_scope(scope), {"seconds": BODY_SECONDS}, {"Connection": "close"})(
                scope, receive, send
            )
            return
        body = first.get("body", b"")
        if first["type"] != "http.request" or first.get("more_body") or len(body) > LONGEST:
            await self.app(scope, _again(first, receive), send)
            return
        try:
            given = await self._answered(dict(scope["headers"]), body, scope)
        except Refused as refused:
            await from_error(refused.error, language.of_scope(scope))(scope, receive, send)
            self.metrics.requests.labels("POST", ADDRESS, "429").inc()
            return
        except Exception as error:  # the slow way finds it again, and keeps what the caller sent out of the log
            log.error("%s in front of the framework", type(error).__name__)
            given = None
        if given is None:
            await self.app(scope, _again(first, receive), send)
            return
        found, lang = given
        whole = _body(found)
        await send({"type": "http.response.start", "status": 200, "headers": [
            (b"content-length", b"%d" % len(whole)), *_HEADERS, (b"content-language", lang.encode()),
        ]})  # fmt: skip
        await send({"type": "http.response.body", "body": whole})
        self._counted(found, began)

    def take(self, lanes: Lanes, headers: dict[bytes, bytes], body: bytes, tell: Tell) -> bool:
        """The same without the messages of ASGI (:mod:`hub.api.wire`): ``tell`` hears header lines and body of the answer, or
        None and ``body`` when there is none this way, and whether the request was counted. False: the question goes the
        ordinary way."""
        began = time.perf_counter()
        try:
            ready = self._ready(headers, body)
            if ready is None:
                return False
            bearer, asked, lang = ready
            one = Waiting(bearer, asked, counted=self._within_rate(lanes, bearer))
        except Refused:
            return False
        except Exception as error:
            log.error("%s on the wire", type(error).__name__)
            return False

        def answered(found: list[answers.Answered] | None) -> None:
            if found is None:
                tell(None, body, one.counted)
                return
            whole = _body(found)
            tell(_LINES % (len(whole), lang.encode()), whole, one.counted)
            self._counted(found, began)

        one.tell = answered
        lanes.submit(one)
        return True

    def _counted(self, found: list[answers.Answered], began: float) -> None:
        self.metrics.lookup(found, time.perf_counter() - began)
        self.answered.inc()

    async def _answered(
        self, headers: dict[bytes, bytes], body: bytes, scope: Scope
    ) -> tuple[list[answers.Answered], Language] | None:
        ready = self._ready(headers, body)
        if ready is None:
            return None
        bearer, asked, lang = ready
        try:
            lanes = await self.lanes_here()
        except (YiciError, SQLAlchemyError):
            return None
        one = Waiting(bearer, asked, counted=self._within_rate(lanes, bearer))
        try:
            found = await lanes.answer(one)
        finally:
            scope[TRIED] = one.counted
        return None if found is None else (found, lang)

    def _ready(self, headers: dict[bytes, bytes], body: bytes) -> tuple[Bearer, Asked, Language] | None:
        """Who asks what in which language; None where anything is not in order."""
        lang = self.language if (wanted := headers.get(b"accept-language")) is None else _language(wanted)
        now = dt.datetime.now(dt.UTC)
        try:
            bearer = self._bearer(headers.get(b"authorization", b""), now)
            if bearer is None or headers.get(b"content-type", b"").partition(b";")[0] != b"application/json":
                return None
            given = Lookup.model_validate_json(body)
            if not bodies.plain(body, _colons(given)):
                return None
            asked = self._asked(given, bearer, lang, now)
        except (ValidationError, YiciError):
            return None
        return None if asked is None else (bearer, asked, lang)

    def _within_rate(self, lanes: Lanes, bearer: Bearer) -> bool:
        """Counts the request, where it is known how many its client may make (else the lane does that, which finds out). Refused when
        they are too many."""
        agreed = lanes.agreements.get(bearer.client)
        if agreed is None:
            return False
        try:
            self.rates.take(bearer.client, agreed[1].rate)
        except UsageError as error:
            raise Refused(error) from error
        return True

    def _bearer(self, header: bytes, now: dt.datetime) -> Bearer | None:
        """Whom the token was issued to; a signature is checked once."""
        kind, _, token = header.partition(b" ")
        if kind.lower() != b"bearer" or len(token) > LONGEST_TOKEN:
            return None
        known = self.bearers.get(token)
        if known is None:
            known = tokens.bearer(token.decode("latin-1").strip())
            if len(self.bearers) >= TOKENS_KEPT:
                self.bearers.clear()
            self.bearers[token] = known
        return known if now < known.expires_at else None

    def _asked(self, given: Lookup, bearer: Bearer, lang: Language, now: dt.datetime) -> Asked | None:
        if given.as_of is not None or (
            given.case is not None and mentions.names_somebody(given.case, (given.id, *given.roles.values()))
        ):
            return None
        question = Question(
            catalogue.expand(given.items), given.id, bearer.client, given.purpose, given.facts, given.roles, given.case, None,
            lang,
        )  # fmt: skip
        if self.hashing is None:
            self.hashing = keyed_hash()
        return answers.prepare(question, now, in_force, self.hashing)

    async def lanes_here(self) -> Lanes:
        """Those of the running loop. Errors as :func:`hub.database.engine`."""
        loop = asyncio.get_running_loop()
        found = self.lanes.get(loop)
        if found is None:
            engine = await run_in_threadpool(database.engine)
            found = self.lanes.setdefault(loop, Lanes(engine, self.rates))
        return found


class Refused(Exception):
    """What has to be said at once: to ask the store only to refuse would be what a limit is against."""

    def __init__(self, error: UsageError) -> None:
        self.error = error


class NotHere(YiciError):
    """An item that only the store can tell about."""


_HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
)
_LINES = b"content-length: %d\r\n" + b"".join(b"%b: %b\r\n" % line for line in _HEADERS) + b"content-language: %b\r\n"
Tell = Callable[[bytes | None, bytes, bool], None]


def _body(found: list[answers.Answered]) -> bytes:
    return b'{"answers":[%s]}' % b",".join([one.body for one in found])


def _colons(given: Lookup) -> int:
    """Those of the members and strings of a question as nearly all are; others are read again on the ordinary way."""
    return (
        len(given.model_fields_set) + len(given.facts) + len(given.roles) + given.id.count(":")
        + sum([text.count(":") for text in given.roles.values()])
    )  # fmt: skip


def in_force(code: str, on: dt.date) -> Item:
    """The version of an item in force, where the catalogue alone can tell."""
    item = catalogue.in_force(code, on)
    if item is None:
        raise NotHere("item-unknown", item="…")
    return item


_languages: dict[bytes, Language] = {}


def _language(header: bytes) -> Language:
    known = _languages.get(header)
    if known is None:
        known = language.of(Headers(raw=[(b"accept-language", header)]))
        if len(_languages) < 1000:
            _languages[header] = known
    return known


async def _soon(receive: Receive) -> Message:
    """The first message; TimeoutError after ``BODY_SECONDS``. Nearly every body has come before it is asked for, and then no
    timer is set: it would take longer than finding the item."""
    steps = receive().__await__()
    try:
        waits_for = next(steps)
    except StopIteration as done:
        return cast(Message, done.value)
    async with asyncio.timeout(BODY_SECONDS):
        return await _Resumed(steps, waits_for)


class _Resumed:
    """What was begun by one step, awaited to its end."""

    def __init__(self, steps: Generator[Any, Any, Message], waits_for: Any) -> None:
        self.steps, self.waits_for = steps, waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        yield self.waits_for
        return (yield from self.steps)


def _again(first: Message, receive: Receive) -> Receive:
    """Hand on the message that was read already."""
    kept: list[Any] = [first]

    async def again() -> Message:
        return kept.pop() if kept else await receive()

    return again
