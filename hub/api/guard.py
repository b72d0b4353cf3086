"""Who is calling: the bearer token names a client, the agreement in the store says what it may do. Default deny."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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


class Attempt:
    """One under way. ``fits``: whether it did; None where it came to nothing, and then it was none."""

    fits: bool | None = None


class Attempts:
    """Failed attempts by (address, client): so many in a window, then a wait. Bounded in memory.

    What is under way counts until it is known: many at once are no more than one after the other. Where it fills the window,
    further ones wait for how it ends, so that nobody is refused for the right secret.
    """

    def __init__(self, allowed: int = 10, seconds: int = 60, remembered: int = 10_000) -> None:
        self.allowed, self.seconds, self.remembered = allowed, seconds, remembered
        self._failures: dict[tuple[str, str], list[float]] = {}
        self._under_way: Counter[tuple[str, str]] = Counter()
        self._changed = threading.Condition()

    def check(self, address: str, client: str) -> None:
        """UsageError ``too-many-attempts`` with the seconds to wait."""
        with self._changed:
            self._room((address, client))

    @contextmanager
    def trying(self, address: str, client: str) -> Iterator[Attempt]:
        """An attempt, which its body says whether it fits. Errors as :meth:`check`, before the body."""
        key = (address, client)
        with self._changed:
            while self._room(key) <= self._under_way[key]:
                self._changed.wait()
            self._under_way[key] += 1
        attempt = Attempt()
        try:
            yield attempt
        finally:
            with self._changed:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
                if attempt.fits:
                    self._failures.pop(key, None)
                elif attempt.fits is False:
                    self._failed(key)
                self._changed.notify_all()

    def _room(self, key: tuple[str, str]) -> int:
        """How many attempts more may fail."""
        now = time.monotonic()
        recent = self._recent(key, now)
        if len(recent) >= self.allowed:
            raise UsageError("too-many-attempts", seconds=max(1, round(recent[0] + self.seconds - now)))
        return self.allowed - len(recent)

    def _failed(self, key: tuple[str, str]) -> None:
        now = time.monotonic()
        recent = self._recent(key, now)
        self._failures.pop(key, None)
        self._failures[key] = [*recent[-self.allowed :], now]
        while len(self._failures) > self.remembered:
            self._failures.pop(next(iter(self._failures)))

    def _recent(self, key: tuple[str, str], now: float) -> list[float]:
        return [at for at in self._failures.get(key, ()) if at > now - self.seconds]
