"""What every route of ``/delta`` has in common: whose token came, errors in Delta Sharing's form, and the ledger.

Whatever is asked of a share is recorded before it is answered, also what is refused; what cannot be recorded is not answered.
Of strangers so much is recorded as they may try: whoever only knocks does not fill the ledger.
The ledger has the table, the version, how many files and rows; never the text of a condition, which may name somebody.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import psycopg
import sqlalchemy as sa
from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from connectors.errors import UsageError, YiciError
from hub import database, problems
from hub.api import guard, language
from hub.api.responses import sharing_problem
from hub.exchange import ledger, shares
from hub.exchange.shares import Share

log = logging.getLogger("yici.api")

RATE = 50  # questions a second of one agreement; files are not counted
STRANGER = "?"  # no hub is called that
TRIED = ("token-invalid", "share-address-invalid")  # a stranger's; more than so many a minute are not looked at


@dataclass
class Told:
    """What the ledger will say of a request. Whoever answers it fills this in as it becomes known."""

    kind: str = "share.other"
    peer: str = STRANGER
    agreement: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def about(self, peer: str, agreement: str) -> None:
        self.peer, self.agreement = peer, agreement


class SharingRoute(APIRoute):
    """A route under ``/delta``: its errors are Delta Sharing's, and all that it does is recorded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            told = request.state.told = Told(kind=f"share.{self.name}")
            lang = language.of(request.headers)
            outcome, response = "ok", None
            try:
                response = await inner(request)
            except RequestValidationError:
                error: YiciError = UsageError("share-parameters")
            except YiciError as refused:
                error = refused
            except (sa.exc.SQLAlchemyError, psycopg.Error) as failed:
                log.error("%s", type(failed).__name__)
                return sharing_problem("store-unavailable", lang)
            except Exception as failed:  # as the envelope does: where it happened, and no more
                frame = traceback.extract_tb(failed.__traceback__)[-1]
                log.error("%s at %s:%s", type(failed).__name__, frame.filename, frame.lineno)
                error = YiciError("internal")
            if response is None:
                outcome = problems.code_of(error)
                if problems.KINDS[outcome].fault == "hub":
                    log.error("%s", error.code)
                response = sharing_problem(outcome, lang, error.values if outcome == error.code else None)
            if told.peer == STRANGER and outcome not in TRIED:
                return response
            try:
                await run_in_threadpool(_record, told, outcome)
            except Exception as failed:  # whatever it is, what is not recorded is not answered
                log.error("share not recorded: %s", type(failed).__name__)
                away = isinstance(failed, sa.exc.SQLAlchemyError | psycopg.Error | YiciError)
                return sharing_problem("store-unavailable" if away else "internal", lang)
            return response

        return handle


def _record(told: Told, outcome: str) -> None:
    with database.engine().begin() as connection:
        ledger.record(
            connection, peer=told.peer, direction="answered", kind=told.kind, agreement=told.agreement, outcome=outcome,
            detail=told.detail,
        )  # fmt: skip


@dataclass(frozen=True)
class Asking:
    """A request for a share: what the caller's agreement opens ``now``. ``told``: for the ledger."""

    share: Share
    now: dt.datetime
    told: Told


def asking(request: Request) -> Asking:
    """Who asks, by the bearer token, and what the agreement opens at this moment.

    UsageError ``token-missing``, ``token-invalid``, ``too-many-attempts``, ``rate-exceeded``, and those of
    :func:`hub.exchange.shares.opened`.
    """
    token = guard.bearer_of(request.headers.get("authorization"))
    now, told = dt.datetime.now(dt.UTC), request.state.told
    with trying(request), database.engine().connect() as connection:
        caller = shares.identified(connection, token, now)
        told.about(caller.peer, caller.reference)
        request.app.state.rates.take(f"share {caller.reference}", RATE)
        return Asking(shares.opened(connection, caller, now), now, told)


@contextmanager
def trying(request: Request) -> Iterator[None]:
    """Count what does not fit; UsageError ``too-many-attempts`` before anything is looked at when there were too many."""
    address = request.client.host if request.client else ""
    attempts: guard.Attempts = request.app.state.attempts
    with attempts.trying(address, "share") as attempt:
        try:
            yield
        except UsageError as error:
            if error.code in TRIED:
                attempt.fits = False
            raise


AskingShare = Annotated[Asking, Depends(asking)]
