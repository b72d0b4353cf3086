"""Around every request: a bounded body, a count by route, and a problem document whatever goes wrong inside."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.errors import UsageError
from hub import deposits
from hub.api import language
from hub.api.metrics import Metrics
from hub.api.responses import refused as refusal

BODY_LIMIT = 64 * 1024
LARGER = {("POST", "/v1/lookups/batch"): 2 * 1024 * 1024}  # a thousand subjects
BODY_SECONDS = 10
# Files are read by the route itself, part by part and onto the disk, once it knows who sends them.
STREAMED = {("POST", "/v1/deposits"): (deposits.LARGEST + BODY_LIMIT, 120)}  # bytes, seconds
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

log = logging.getLogger("yici.api")


class Envelope:
    """ASGI middleware. The body is read before the application starts and handed on whole."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, counted)
        except Exception as error:
            # Only where it happened: a message or a traceback could carry what the caller sent.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
            if not status:
                await refusal(scope["path"], "internal", language.of_scope(scope))(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            method = scope["method"] if scope["method"] in METHODS else "-"
            self.metrics.requests.labels(method, route, str(status or 499)).inc()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if limits := STREAMED.get((scope["method"], scope["path"])):
            await self.app(scope, _bounded(receive, *limits), send)
            return
        refused = None
        limit = LARGER.get((scope["method"], scope["path"]), BODY_LIMIT)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive, limit)
        except TimeoutError:
            values: dict[str, object] = {"seconds": BODY_SECONDS}
            refused = refusal(scope["path"], "body-slow", language.of_scope(scope), values, {"Connection": "close"})
        except OverflowError:
            refused = refusal(
                scope["path"], "body-too-large", language.of_scope(scope), {"limit": limit}, {"Connection": "close"}
            )
        if refused is not None:
            await refused(scope, receive, send)
        elif body is not None:
            await self.app(scope, _replay(body, receive), send)


def _bounded(receive: Receive, limit: int, seconds: float) -> Receive:
    """The body as it comes, but no more of it and no longer. UsageError ``deposit-too-large`` or ``body-slow`` for who reads it."""
    size, deadline = 0, time.monotonic() + seconds

    async def bounded() -> Message:
        nonlocal size
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise UsageError("body-slow", seconds=seconds) from None
        size += len(message.get("body", b""))
        if size > limit:
            raise UsageError("deposit-too-large", megabytes=deposits.LARGEST >> 20)
        return message

    return bounded


async def _body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the client has gone. OverflowError beyond the limit."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise OverflowError
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
