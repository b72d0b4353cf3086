"""Who is calling: the bearer token names a client and what it is for, the agreement in the store says what it may do.

Default deny: an intake system's token opens no index, a peer's no lookup.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Annotated, TypeVar

from fastapi import Depends
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2
from starlette.requests import Request

from connectors.errors import UsageError
from hub import agreements, database, peers, tokens
from hub.agreements import Agreement
from hub.api.rates import TRIED
from hub.peers import Peer
from hub.tokens import Bearer

Agreed = TypeVar("Agreed", Agreement, Peer)

TOKEN_URL = "/oauth2/token"  # an address, no secret  # noqa: S105

_scheme = OAuth2(
    flows=OAuthFlows(
        clientCredentials=OAuthFlowClientCredentials(
            tokenUrl=TOKEN_URL, scopes={"lookup": "Ask what is held.", "index": "Read the index feed, for peers."}
        )
    ),
    scheme_name="clientCredentials",
    auto_error=False,
)


def agreement(request: Request, header: Annotated[str | None, Depends(_scheme)]) -> Agreement:
    """The caller's agreement, read anew each time so that its end takes effect at once.

    UsageError ``token-missing``, ``token-invalid`` (also of a client removed, or agreed with anew, since), ``scope-insufficient``,
    ``agreement-ended`` or ``rate-exceeded``.
    """
    bearer = tokens.bearer(bearer_of(header))
    with database.engine().connect() as connection:
        found = agreements.of(connection, bearer.client)
    admitted = _admitted(found, bearer, found.valid_from if found else None)
    if not request.scope.get(TRIED):
        request.app.state.rates.take(admitted.client, admitted.rate)
    return admitted


def peer(request: Request, header: Annotated[str | None, Depends(_scheme)]) -> Peer:
    """The calling peer, read anew each time; errors as :func:`agreement`."""
    bearer = tokens.bearer(bearer_of(header), "index")
    with database.engine().connect() as connection:
        found = peers.of(connection, bearer.client)
    return _admitted(found, bearer, found.created_at if found else None)


def _admitted(found: Agreed | None, bearer: Bearer, agreed_at: dt.datetime | None) -> Agreed:
    """``found`` when it is in force and the token was issued under it."""
    if found is None or agreed_at is None:
        raise UsageError("token-invalid")
    if not found.in_force(dt.datetime.now(dt.UTC)):
        raise UsageError("agreement-ended")
    if not bearer.since(agreed_at):
        raise UsageError("token-invalid")
    return found


def bearer_of(header: str | None) -> str:
    """The token in an Authorization header. UsageError ``token-missing``."""
    kind, _, token = (header or "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise UsageError("token-missing")
    return token.strip()


Caller = Annotated[Agreement, Depends(agreement)]
CallingPeer = Annotated[Peer, Depends(peer)]


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
