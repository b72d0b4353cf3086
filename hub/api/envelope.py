"""Around every request: a bounded body, a count by route, and a problem document whatever goes wrong inside."""

from __future__ import annotations

import asyncio
import logging
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.api import language
from hub.api.metrics import Metrics
from hub.api.responses import problem

BODY_LIMIT = 64 * 1024
BODY_SECONDS = 10
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
                await problem("internal", language.of_scope(scope))(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            method = scope["method"] if scope["method"] in METHODS else "-"
            self.metrics.requests.labels(method, route, str(status or 499)).inc()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            refused = problem("body-slow", language.of_scope(scope), {"seconds": BODY_SECONDS}, {"Connection": "close"})
        except OverflowError:
            refused = problem(
                "body-too-large", language.of_scope(scope), {"limit": BODY_LIMIT}, {"Connection": "close"}
            )
        if refused is not None:
            await refused(scope, receive, send)
        elif body is not None:
            await self.app(scope, _replay(body, receive), send)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the client has gone. OverflowError beyond the limit."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
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
