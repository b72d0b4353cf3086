"""``GET /v1/burden``: what applicants are really asked for, of all that the catalogue demands."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, create_model
from starlette.requests import Request
from starlette.responses import Response

from connectors.errors import UsageError
from hub import burden, catalogue, database
from hub.api import language
from hub.api.guard import Caller
from hub.api.items import iso
from hub.api.responses import Json, documented
from hub.burden import By

router = APIRouter()

PURPOSE = "burden"  # one that the agreement has to name
LONGEST = 60  # seconds that it may take


_DAY = BeforeValidator(iso)
First = Annotated[
    dt.date | None, _DAY, Query(description="The first day in China, yyyy-mm-dd; that of the month without it.")
]
Last = Annotated[dt.date | None, _DAY, Query(description="The last day in China; today without it.")]


class Counts(BaseModel):
    """Materials by what became of them; ``ratio``: asked by demanded, null where nothing is demanded."""

    answers: int
    demanded: int
    held: int
    alternative_held: int
    held_elsewhere: int
    undetermined: int
    deferred: int
    expired: int
    submit: int
    asked: int
    open: int
    not_required: int
    ratio: float | None


Group = create_model("Group", __base__=Counts, **dict.fromkeys(burden.BY, (str | None, None)))  # type: ignore[call-overload]


class Still(BaseModel):
    """A requirement that asks for what is held; the counts are explained in docs/burden.md."""

    item: str
    requirement: str
    material: str
    asked: int
    held_unfit: int
    held_same_day: int
    held_later: int


class Ledger(BaseModel):
    """The ledger by one dimension."""

    by: By
    since: str
    until: str
    rows: list[Group]  # type: ignore[valid-type]
    total: Counts
    still: list[Still] | None = None


@router.get(
    "/v1/burden",
    summary="Read the burden ledger",
    tags=["burden"],
    responses={
        200: {"description": "What is demanded, held and really asked for", "model": Ledger},
        **documented(401, 403, 408, 413, 422, 429, 500, 503),
    },
    response_class=Json,
)
def show_burden(
    request: Request,
    caller: Caller,
    by: By = "item",
    since: First = None,
    until: Last = None,
    still: Annotated[bool, Query(description="Requirements that ask for what is held, too.")] = False,
) -> Response:
    """Over all clients, of the items of the agreement, for agreements that name the purpose `burden`; this month without dates."""
    caller.admit((), PURPOSE, dt.datetime.now(dt.UTC))
    lang = language.of(request.headers)
    today = catalogue.today()
    first, last = since or min(until or today, today).replace(day=1), until or today
    if last < first:
        raise UsageError("period-invalid")
    scope = burden.days(first, last, caller.items)
    with database.engine().begin() as connection:
        connection.execute(sa.text(f"SET LOCAL statement_timeout = '{LONGEST}s'"))
        rows = burden.ledger(connection, by, scope, lang)
        body = {
            "by": by,
            "since": first.isoformat(),
            "until": last.isoformat(),
            "rows": rows,
            "total": burden.total(rows),
            **({"still": burden.still(connection, scope)} if still else {}),
        }
    return Json(body, headers={"Cache-Control": "no-store", "Content-Language": lang})
