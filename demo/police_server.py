"""The public security bureau 公安 of the demo: paged REST over the files of ``yici synth``, as such departments offer it.

``POST /oauth/token`` (client credentials), ``GET /residents`` and ``GET /households`` with a bearer token, ``/healthz``.
Now and then a request is refused with 429 and ``Retry-After``, so that a client proves that it waits and asks again.
Run: ``python -m demo.police_server --data DIR --port P``; credentials come from the environment only.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime as dt
import hmac
import mmap
import os
import secrets
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl, unquote_plus

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.errors import FatalError, UsageError, YiciError

CHINA = dt.timezone(dt.timedelta(hours=8))
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SIZE_LIMIT = 1000
FORM_LIMIT = 16_384
REFUSE_EVERY = 7


class Register:
    """One JSON-lines file, sorted by (gxsj, identifier) whatever its order, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Raises FatalError when the file is missing or cannot be read."""
        try:
            about = self.path.stat()
        except OSError as error:
            raise FatalError("demo-data-missing", file=self.path) from error
        with self._lock:
            if self._state != (about.st_mtime_ns, about.st_size):
                self._load()
                self._state = (about.st_mtime_ns, about.st_size)

    def _load(self) -> None:
        with self.path.open("rb") as file:
            self._bytes: mmap.mmap | bytes = (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.path.stat().st_size else b""
            )
        ends = np.flatnonzero(np.frombuffer(self._bytes, dtype=np.uint8) == ord("\n"))
        keys = pa.schema([("gxsj", pa.string()), ("gmsfhm", pa.string())])
        parsing = pj.ParseOptions(explicit_schema=keys, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(self.path, parse_options=parsing) if len(ends) else keys.empty_table()
            moments = pc.cast(table["gxsj"], pa.timestamp("us", tz="UTC"))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise FatalError("demo-data-unreadable", file=self.path) from None  # the cause may quote a record
        if len(table) != len(ends) or moments.null_count:
            raise FatalError("demo-data-unreadable", file=self.path)
        order = pc.sort_indices(
            pa.table({"moment": moments, "id": table["gmsfhm"]}),
            sort_keys=[("moment", "ascending"), ("id", "ascending")],
        )
        self._order = order.to_numpy()
        self._moments = moments.take(order).cast(pa.int64()).to_numpy()
        self._ends = ends
        self._starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64) if len(ends) else ends

    def page(self, page: int, size: int, since: dt.datetime | None, until: dt.datetime | None) -> bytes:
        """The body of one page of what was updated from ``since`` to ``until``, both included."""
        first = 0 if since is None else int(np.searchsorted(self._moments, _micros(since), side="left"))
        end = len(self._moments) if until is None else int(np.searchsorted(self._moments, _micros(until), side="right"))
        total = max(end - first, 0)
        begin = first + (page - 1) * size
        rows = self._order[begin : min(begin + size, end)] if begin < end else self._order[:0]
        records = b",".join(self._bytes[self._starts[row] : self._ends[row]] for row in rows)
        tail = f'],"page":{page},"size":{size},"pages":{-(-total // size)},"total":{total}}}'
        return b'{"code":0,"data":[' + records + tail.encode()


class Department:
    """Clients, tokens and registers of one running server."""

    def __init__(self, folder: Path, client_id: str, client_secret: str, token_seconds: int, refuse_every: int) -> None:
        self.residents = Register(folder / "ga" / "residents.jsonl")
        self.households = Register(folder / "ga" / "households.jsonl")
        self._client = (client_id.encode(), client_secret.encode())
        self._token_seconds = token_seconds
        self._refuse_every = refuse_every
        self._tokens: dict[str, float] = {}
        self._served = 0
        self._refused: set[str] = set()

    async def token(self, request: Request) -> Response:
        """RFC 6749, 4.4: client credentials in the Authorization header or in the form."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > FORM_LIMIT:
                return _oauth_error("invalid_request", 413)
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return _oauth_error("invalid_request", 400)
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        offered = _basic(request.headers.get("authorization")) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        # Both are compared, whatever the first comparison says: the time taken tells nothing.
        same = [hmac.compare_digest(mine, theirs.encode()) for mine, theirs in zip(self._client, offered, strict=True)]
        if not all(same):
            return _oauth_error("invalid_client", 401)
        if form.get("grant_type") != "client_credentials":
            return _oauth_error("unsupported_grant_type", 400)
        now = time.monotonic()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token = secrets.token_urlsafe(32)
        self._tokens[token] = now + self._token_seconds
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self._token_seconds}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def data(self, request: Request) -> Response:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or self._tokens.get(token.strip(), 0) <= time.monotonic():
            return _error(401, 40100, "token missing or expired", {"WWW-Authenticate": "Bearer"})
        if self._refuses(f"{request.url.path}?{request.url.query}"):
            return _error(429, 42900, "too many requests", {"Retry-After": "1"})
        try:
            page = _number(request, "page", 1, None)
            size = _number(request, "size", 100, SIZE_LIMIT)
            since, until = _moment(request, "updated_since"), _moment(request, "updated_until")
        except ValueError as error:
            return _error(400, 40000, f"parameter {error} is not valid")
        register = self.residents if request.url.path == "/residents" else self.households
        try:
            await run_in_threadpool(register.refresh)
        except FatalError as error:
            return _error(503, 50300, error.message("en"))
        return Response(register.page(page, size, since, until), media_type="application/json")

    def _refuses(self, question: str) -> bool:
        """True for every n-th question, the first time it is put."""
        if question in self._refused:
            self._refused.discard(question)
            return False
        self._served += 1
        if not self._refuse_every or self._served % self._refuse_every:
            return False
        if len(self._refused) > 1000:
            self._refused.clear()
        self._refused.add(question)
        return True


def application(
    folder: Path, client_id: str, client_secret: str, token_seconds: int = 600, refuse_every: int = REFUSE_EVERY
) -> Starlette:
    """The department as an ASGI application. Raises FatalError when the files of ``yici synth`` are not there."""
    department = Department(folder, client_id, client_secret, token_seconds, refuse_every)
    department.residents.refresh()
    department.households.refresh()

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/oauth/token", department.token, methods=["POST"]),
            Route("/residents", department.data),
            Route("/households", department.data),
            Route("/healthz", healthz),
        ]
    )


def serve(folder: Path, port: int, client_id: str, client_secret: str, token_seconds: int = 600) -> None:
    """Serve on 127.0.0.1 until told to stop; prints the address once it listens. ``port`` 0 takes any free one."""
    import uvicorn

    app = application(folder, client_id, client_secret, token_seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise FatalError("demo-port-in-use", port=port) from error
        listener.listen(128)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        # No access log: queries are nobody's business.
        config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.police_server", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder made by `yici synth`")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 for any free one")
    parser.add_argument("--client-id-env", default="YICI_DEMO_CLIENT_ID", metavar="NAME")
    parser.add_argument("--client-secret-env", default="YICI_DEMO_CLIENT_SECRET", metavar="NAME")
    parser.add_argument("--token-seconds", type=int, default=600, help="life of an access token")
    given = parser.parse_args(arguments)
    try:
        client_id, client_secret = _from_environment(given.client_id_env), _from_environment(given.client_secret_env)
        serve(given.data, given.port, client_id, client_secret, given.token_seconds)
    except YiciError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _from_environment(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise UsageError("demo-credentials-missing", name=name)


def _basic(header: str | None) -> tuple[str, str] | None:
    kind, _, encoded = (header or "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote_plus(user), unquote_plus(password)


def _number(request: Request, name: str, default: int, limit: int | None) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < 1 or (limit and int(text) > limit):
        raise ValueError(name)
    return int(text)


def _moment(request: Request, name: str) -> dt.datetime | None:
    """ISO 8601; local time of China when it names no zone."""
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        moment = dt.datetime.fromisoformat(text if "T" not in text else text.replace(" ", "+"))
    except ValueError:
        raise ValueError(name) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=CHINA)


def _micros(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"code": code, "message": message}, status, headers)


def _oauth_error(error: str, status: int) -> Response:
    headers = {"WWW-Authenticate": 'Basic realm="oauth"'} if status == 401 else None
    return JSONResponse({"error": error}, status, headers)


if __name__ == "__main__":
    raise SystemExit(main())
