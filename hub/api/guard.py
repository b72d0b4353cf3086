"""Who is calling: the bearer token names a client, the agreement in the store says what it may do. Default deny."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2
from starlette.requests import Request

from connectors.errors import UsageError
from hub import agreements, database, tokens
from hub.agreements import Agreement
from hub.api.rates import TRIED
from hub.tokens import Bearer

TOKEN_URL = "/oauth2/token"  # an address, no secret  # noqa: S105

_scheme = OAuth2(
    flows=OAuthFlows(
        clientCredentials=OAuthFlowClientCredentials(tokenUrl=TOKEN_URL, scopes={"lookup": "Ask what is held."})
    ),
    scheme_name="clientCredentials",
    auto_error=False,
)


def agreement(request: Request, header: Annotated[str | None, Depends(_scheme)]) -> Agreement:
    """The caller's agreement. UsageError ``token-missing`` or ``rate-exceeded``, and as :func:`agreed`."""
    found = agreed(tokens.bearer(bearer_of(header)))
    if not request.scope.get(TRIED):
        request.app.state.rates.take(found.client, found.rate)
    return found


def agreed(bearer: Bearer) -> Agreement:
    """The agreement of whom a token was issued to, read anew each time so that its end takes effect at once.

    UsageError ``token-invalid`` (also of a client removed, or agreed with anew, since) or ``agreement-ended``.
    """
    with database.engine().connect() as connection:
        found = agreements.of(connection, bearer.client)
    if found is None:
        raise UsageError("token-invalid")
    if not found.in_force(dt.datetime.now(dt.UTC)):
        raise UsageError("agreement-ended")
    if not bearer.since(found.valid_from):
        raise UsageError("token-invalid")
    return found


def bearer_of(header: str | None) -> str:
    """The token in an Authorization header. UsageError ``token-missing``."""
    kind, _, token = (header or "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise UsageError("token-missing")
    return token.strip()


Caller = Annotated[Agreement, Depends(agreement)]


class Attempts:
    """Failed attempts by (address, client): so many in a window, then a wait. Bounded in memory."""

    def __init__(self, allowed: int = 10, seconds: int = 60, remembered: int = 10_000) -> None:
        self.allowed, self.seconds, self.remembered = allowed, seconds, remembered
        self._failures: dict[tuple[str, str], list[float]] = {}
        self._lock = threading.Lock()

    def check(self, address: str, client: str) -> None:
        """UsageError ``too-many-attempts`` with the seconds to wait."""
        now = time.monotonic()
        with self._lock:
            recent = [at for at in self._failures.get((address, client), []) if at > now - self.seconds]
        if len(recent) >= self.allowed:
            raise UsageError("too-many-attempts", seconds=max(1, round(recent[0] + self.seconds - now)))

    def failed(self, address: str, client: str) -> None:
        now = time.monotonic()
        with self._lock:
            recent = [at for at in self._failures.pop((address, client), []) if at > now - self.seconds]
            self._failures[(address, client)] = [*recent[-self.allowed :], now]
            while len(self._failures) > self.remembered:
                self._failures.pop(next(iter(self._failures)))

    def succeeded(self, address: str, client: str) -> None:
        with self._lock:
            self._failures.pop((address, client), None)
