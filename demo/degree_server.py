"""The education commission 教育委员会 of the demo: degree certificates, nested JSON that is paged by token.

``POST /oauth/token`` (client credentials), ``GET /degrees?limit=…[&updated_since=…]`` with a bearer token, then
``&cursor=…`` with the ``next`` of the page before; ``resume`` on the last page goes on later. The ``ETag`` stands for the
whole register: 304 when it is still the same. Tokens are known to the running server alone: 410 for any other.
Run: ``python -m demo.degree_server --data DIR --port P``; credentials come from the environment only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.errors import FatalError
from demo import department_server
from demo.department_server import Guard, error, moment, number
from demo.jsonregister import Mark, Register

SIZE_LIMIT = 1000
TOKENS_KEPT = 20_000


class Degrees:
    """The register of one running server and the tokens it gave out."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        self.guard = guard
        self.register = Register(folder / "moe" / "degrees.jsonl", "updated_at", "certificate.number")
        self._secret = secrets.token_bytes(32)
        self._marks: dict[str, Mark | None] = {}

    async def data(self, request: Request) -> Response:
        if refused := self.guard.refusal(request):
            return refused
        try:
            limit = number(request, "limit", 100, SIZE_LIMIT)
            since = moment(request, "updated_since")
        except ValueError as wrong:
            return error(400, 40000, f"parameter {wrong} is not valid")
        try:
            await run_in_threadpool(self.register.refresh)
        except FatalError as failure:
            return error(503, 50300, failure.message("en"))
        etag = f'"{self.register.state}"'
        if etag in (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers={"ETag": etag})
        token = request.query_params.get("cursor")
        if token is not None and token not in self._marks:
            return error(410, 41000, "this token is not known any more")
        begin = self.register.first(since) if token is None else self.register.behind(self._marks[token])
        return Response(self._page(begin, limit), media_type="application/json", headers={"ETag": etag})

    def _page(self, begin: int, limit: int) -> bytes:
        end = min(begin + limit, len(self.register))
        key = "next" if end < len(self.register) else "resume"
        ends = {"next": None, "resume": None} | {key: self._token(self.register.mark(end))}
        return b'{"items":[' + self.register.records(begin, end) + b"]," + json.dumps(ends).encode()[1:]

    def _token(self, mark: Mark | None) -> str:
        """Says nothing about the record it stands behind; the same mark has the same token."""
        token = hmac.new(self._secret, repr(mark).encode(), hashlib.sha256).hexdigest()
        self._marks.pop(token, None)
        if len(self._marks) >= TOKENS_KEPT:
            del self._marks[next(iter(self._marks))]
        self._marks[token] = mark
        return token


def application(folder: Path, guard: Guard) -> Starlette:
    """The department as an ASGI application. Raises FatalError when the file of ``yici synth`` is not there."""
    degrees = Degrees(folder, guard)
    degrees.register.refresh()
    return department_server.application(guard, Route("/degrees", degrees.data))


def main(arguments: list[str] | None = None) -> int:
    return department_server.main("demo.degree_server", __doc__, application, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
