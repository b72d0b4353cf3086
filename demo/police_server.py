"""The public security bureau 公安 of the demo: paged REST over the files of ``yici synth``, as such departments offer it.

``POST /oauth/token`` (client credentials), ``GET /residents`` and ``GET /households`` with a bearer token, ``/healthz``.
Run: ``python -m demo.police_server --data DIR --port P``; credentials come from the environment only.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.errors import FatalError
from demo import department_server
from demo.department_server import Guard, error, moment, number
from demo.jsonregister import Register

SIZE_LIMIT = 1000


class Police:
    """Both registers of one running server."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        self.guard = guard
        self.registers = {
            f"/{name}": Register(folder / "ga" / f"{name}.jsonl", "gxsj", "gmsfhm")
            for name in ("residents", "households")
        }

    async def data(self, request: Request) -> Response:
        if refused := self.guard.refusal(request):
            return refused
        try:
            page = number(request, "page", 1, None)
            size = number(request, "size", 100, SIZE_LIMIT)
            since, until = moment(request, "updated_since"), moment(request, "updated_until")
        except ValueError as wrong:
            return error(400, 40000, f"parameter {wrong} is not valid")
        register = self.registers[request.url.path]
        try:
            await run_in_threadpool(register.refresh)
        except FatalError as failure:
            return error(503, 50300, failure.message("en"))
        first, end = register.first(since), register.end(until)
        total = max(end - first, 0)
        begin = first + (page - 1) * size
        records = register.records(begin, min(begin + size, end))
        tail = f'],"page":{page},"size":{size},"pages":{-(-total // size)},"total":{total}}}'
        return Response(b'{"code":0,"data":[' + records + tail.encode(), media_type="application/json")


def application(folder: Path, guard: Guard) -> Starlette:
    """The department as an ASGI application. Raises FatalError when the files of ``yici synth`` are not there."""
    police = Police(folder, guard)
    for register in police.registers.values():
        register.refresh()
    return department_server.application(guard, *(Route(path, police.data) for path in police.registers))


def main(arguments: list[str] | None = None) -> int:
    return department_server.main("demo.police_server", __doc__, application, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
