"""``/v1/answers/{answer}``: a stored answer with its trace, and the one-time notice 一次性告知书 made from it.

An answer is shown to the client it was given to, as long as its agreement names the item and the purpose. To anybody else it does
not exist.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.requests import Request

from connectors.errors import UsageError
from hub import database, notices, records
from hub.agreements import Agreement
from hub.api import language
from hub.api.guard import Caller
from hub.api.items import prefers_html
from hub.api.lookups import Answer
from hub.api.responses import Json, documented
from hub.resolver import Disposition
from mappings.items import FactValue

router = APIRouter()

Key = Annotated[str, Path(max_length=64, description="The `answer` field of a lookup.")]


class HoldingTraced(BaseModel):
    """A certificate that was looked at; ``conflicting``: sources disagree about it."""

    holding: str
    status: str
    conflicting: bool


class EntryTraced(BaseModel):
    """The same in a partner hub's index."""

    entry: str
    source: str
    epoch: str | None
    status: str


class FindingTraced(BaseModel):
    """What became of one material of one party; ``source``: the one that is late. The certificate has to name those in ``with``
    too, and those in ``with_named`` where they are named."""

    material: str
    holder: str
    state: Literal["held", "elsewhere", "expired", "missing", "late", "role", "identity", "untold"]
    reason: str
    holdings: list[HoldingTraced] | None = None
    entries: list[EntryTraced] | None = None
    source: str | None = None
    with_: Annotated[list[str] | None, Field(alias="with")] = None
    with_named: list[str] | None = None


class ConditionTraced(BaseModel):
    """What the condition came to; null while ``deciding`` facts are missing."""

    value: bool | None
    deciding: list[str]


class RuleTraced(BaseModel):
    """One requirement: its condition, all its options, and what follows."""

    requirement: str
    condition: ConditionTraced
    options: list[list[FindingTraced]]
    disposition: Disposition
    reason: str
    materials: list[str]
    must_submit: list[str] | None = None
    deferred: list[str] | None = None


class SourceTraced(BaseModel):
    """How fresh a source of one of the item's materials was."""

    source: str
    material: str
    last_success_at: str | None
    late: bool
    hub: str | None = None
    region: str | None = None


class Joining(BaseModel):
    """A row, or a decision of a person, that makes identifiers one."""

    source: str | None = None
    file: str | None = None
    row: int | None = None
    decision: str | None = None


class Trace(BaseModel):
    """All that was decided from, and how. ``identity``: by role, what makes the party one with others. ``said``: SHA-256 of what the
    answer says, in its language; empty where its words are gone, not there in answers of before it was kept."""

    item: str
    version: int
    day: str
    facts: dict[str, FactValue]
    sources: list[SourceTraced]
    requirements: list[RuleTraced]
    identity: dict[str, list[Joining]] | None = None
    said: str | None = None


class EvidenceTraced(BaseModel):
    """Evidence that was fetched under the answer. ``provider``: the partner hub that gave it, null where this one did; ``message``: by
    which both hubs' ledgers know it."""

    holding: str
    material: str
    fields: list[str]
    at: str
    provider: str | None
    message: str | None


class StoredAnswer(BaseModel):
    """An answer as it was given. ``replay``: whether it comes out the same when it is made again from its inputs now; ``evidence``:
    what it opened and was fetched so far."""

    answer: str
    item: str
    asked_at: str
    client: str
    purpose: str
    case: str | None
    inputs_digest: Annotated[str, Field(description="SHA-256 of all that it was decided from")]
    trace: Trace
    body: Answer | None
    replay: Literal["same", "differs", "impossible"]
    evidence: list[EvidenceTraced]


@router.get(
    "/v1/answers/{answer}",
    summary="Read a stored answer with its trace",
    tags=["answers"],
    responses={
        200: {"description": "The answer, rule by rule", "model": StoredAnswer},
        **documented(401, 403, 404, 408, 413, 422, 429, 500, 503),
    },
    response_class=Json,
)
def show_answer(answer: Key, caller: Caller) -> Response:
    """What was answered, from what, under which rules, whether the same comes out today, and which evidence was fetched under it."""
    return Json(_own(answer, caller), headers={"Cache-Control": "no-store"})


@router.get(
    "/v1/answers/{answer}/notice",
    summary="Read the one-time notice",
    tags=["answers"],
    responses={
        200: {
            "description": "Everything that is missing, for all items asked together: a page to print, on one sheet where they are few, or JSON",
            "content": {
                "application/json": {"schema": notices.SCHEMA},
                notices.HTML: {"schema": {"type": "string"}},
            },
        },
        **documented(401, 403, 404, 408, 409, 413, 422, 429, 500, 503),
    },
    response_class=Response,
)
def notice(
    request: Request,
    answer: Key,
    caller: Caller,
    format: Annotated[Literal["html", "json"] | None, Query(description="Without it, by Accept.")] = None,
) -> Response:
    """The notice for this answer and those asked together with it, in the language that is asked for here."""
    purpose = _own(answer, caller)["purpose"]
    lang = language.of(request.headers)
    kind = format or ("html" if prefers_html(request.headers.get("accept", "")) else "json")
    made = notices.notice(database.engine(), answer, lang)
    caller.admit([one["item"] for one in made["items"]], purpose, dt.datetime.now(dt.UTC))
    headers = {"Cache-Control": "no-store", "Content-Language": lang, "Vary": "Accept, Accept-Language"}
    if kind == "json":
        return Response(notices.json(made), media_type="application/json", headers=headers)
    return Response(
        notices.html(made, lang),
        media_type=notices.HTML,
        headers={**headers, "Content-Security-Policy": notices.POLICY},
    )


def _own(answer: str, caller: Agreement) -> dict[str, Any]:
    """The answer, if it was given to ``caller`` and is about what its agreement names still. UsageError ``answer-unknown``,
    ``item-not-agreed``, ``purpose-not-agreed``."""
    found = records.explain(database.engine(), answer)
    if not caller.given(found["client"], dt.datetime.fromisoformat(found["asked_at"])):
        raise UsageError("answer-unknown")
    caller.admit([found["item"]], found["purpose"], dt.datetime.now(dt.UTC))
    return found
