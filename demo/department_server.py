"""What the demo's REST departments have in common: client credentials, a refusal now and then, parameters, start and end.

Now and then a request is refused with 429 and ``Retry-After``, so that a client proves that it waits and asks again. The
credentials come from the environment only.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime as dt
import hmac
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.errors import FatalError, UsageError, YiciError

CHINA = dt.timezone(dt.timedelta(hours=8))
FORM_LIMIT = 16_384
REFUSE_EVERY = 7


class Guard:
    """The one client that may ask, its tokens, and the questions that were refused for now."""

    def __init__(self, client_id: str, client_secret: str, token_seconds: int, refuse_every: int) -> None:
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

    def refusal(self, request: Request) -> Response | None:
        """401 without a token in force, 429 for every n-th question the first time it is put; None: go on."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or self._tokens.get(token.strip(), 0) <= time.monotonic():
            return error(401, 40100, "token missing or expired", {"WWW-Authenticate": "Bearer"})
        if self._refuses(f"{request.url.path}?{request.url.query}"):
            return error(429, 42900, "too many requests", {"Retry-After": "1"})
        return None

    def _refuses(self, question: str) -> bool:
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


def application(guard: Guard, *routes: Route) -> Starlette:
    """``POST /oauth/token`` and ``/healthz`` beside the department's own routes."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    made = Starlette(routes=[Route("/oauth/token", guard.token, methods=["POST"]), *routes, Route("/healthz", healthz)])
    made.router.redirect_slashes = False
    return made


def main(module: str, about: str | None, make: Callable[[Path, Guard], Starlette], arguments: list[str] | None) -> int:
    """The command line of a department's server; ``make`` raises FatalError when its data are not there."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--data", type=Path, required=True, help="folder made by `yici synth`")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 for any free one")
    parser.add_argument("--client-id-env", default="YICI_DEMO_CLIENT_ID", metavar="NAME")
    parser.add_argument("--client-secret-env", default="YICI_DEMO_CLIENT_SECRET", metavar="NAME")
    parser.add_argument("--token-seconds", type=int, default=600, help="life of an access token")
    given = parser.parse_args(arguments)
    try:
        client = _from_environment(given.client_id_env), _from_environment(given.client_secret_env)
        serve(make(given.data, Guard(*client, given.token_seconds, REFUSE_EVERY)), given.port)
    except YiciError as failure:
        print(failure, file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def serve(app: Starlette, port: int) -> None:
    """Serve on 127.0.0.1 until told to stop; prints the address once it listens. ``port`` 0 takes any free one."""
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as failure:
            raise FatalError("demo-port-in-use", port=port) from failure
        listener.listen(128)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        # No access log: queries are nobody's business.
        config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


def number(request: Request, name: str, default: int, limit: int | None) -> int:
    """A parameter from 1 to ``limit``. ValueError with its name."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < 1 or (limit and int(text) > limit):
        raise ValueError(name)
    return int(text)


def moment(request: Request, name: str) -> dt.datetime | None:
    """ISO 8601; local time of China when it names no zone. ValueError with the parameter's name."""
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        found = dt.datetime.fromisoformat(text if "T" not in text else text.replace(" ", "+"))
    except ValueError:
        raise ValueError(name) from None
    return found if found.tzinfo else found.replace(tzinfo=CHINA)


def error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"code": code, "message": message}, status, headers)


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


def _oauth_error(name: str, status: int) -> Response:
    headers = {"WWW-Authenticate": 'Basic realm="oauth"'} if status == 401 else None
    return JSONResponse({"error": name}, status, headers)
