"""``POST /v1/lookups``: what is held, and what must still be submitted."""

from __future__ import annotations

import datetime as dt
import time
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from connectors.errors import UsageError
from connectors.messages import Language
from hub import answers, catalogue, database, mentions
from hub.agreements import Agreement
from hub.answers import Answered, Question
from hub.api import bodies, language
from hub.api.guard import Caller
from hub.api.responses import Json, documented, problem
from hub.resolver import Disposition
from mappings.items import FactValue

router = APIRouter()

Plain = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Lookup(BaseModel):
    """A question. Identifiers stand in the body only, never in an address."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[
        list[Plain],
        Field(
            min_length=1,
            max_length=answers.MAX_ITEMS,
            description="Codes of service items or bundles",
            examples=[["demo-food-permit"]],
        ),
    ]
    id: Annotated[Plain, Field(description="The applicant, scheme:value", examples=["cn.uscc:91310117MA1J3AJ43G"])]
    facts: Annotated[dict[Plain, FactValue], Field(max_length=50, description="Facts of the case")] = {}
    roles: Annotated[dict[Plain, Plain], Field(max_length=20, description="Others concerned, scheme:value")] = {}
    purpose: Annotated[Plain | None, Field(description="May be left out if the agreement has one only")] = None
    case: Annotated[
        str | None, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,64}$"), Field(description="Number of the case")
    ] = None
    as_of: Annotated[AwareDatetime | None, Field(description="Answer as known at this time")] = None


class Ask(BaseModel):
    """The question that decides a requirement."""

    fact: str
    type: str
    text: str
    values: list[str] | None = None


class RoleShown(BaseModel):
    """A party that the question does not name."""

    role: str
    name: str


class HoldingShown(BaseModel):
    """A certificate that counts; ``holding`` is opaque."""

    holding: str
    material: str
    holder: str
    valid_to: str | None
    region: str | None


class ElsewhereShown(BaseModel):
    """A certificate that a partner hub says it holds; ``handle``: what it is fetched by; ``as_of``: when that hub's index was last
    read to the end."""

    handle: str
    hub: str
    source: str
    material: str
    holder: str
    region: str | None
    valid_to: str | None
    as_of: str | None


class DeferralShown(BaseModel):
    """What stands in for ``materials`` for now: handing them in ``within_days`` (later), or a written promise."""

    kind: Literal["later", "promise"]
    within_days: int | None
    basis: str
    materials: list[str]


class ProvenanceShown(BaseModel):
    """A row that says so."""

    source: str
    file: str
    row: int


class LackingShown(BaseModel):
    """A paper that lacks. ``holder``: whose, by role; ``region``: two digits of the province where only its paper will do."""

    material: str
    holder: str
    name: str
    region: str | None


class RequirementShown(BaseModel):
    """One requirement decided."""

    requirement: str
    name: str
    materials: list[str]
    disposition: Disposition
    reason: str
    reason_code: str
    legal_basis: str | None
    lacking: Annotated[
        list[LackingShown] | None, Field(description="What is to be handed in, now or where deferred later")
    ] = None
    question: Annotated[Ask | None, Field(description="The first of `questions`")] = None
    questions: Annotated[list[Ask] | None, Field(description="Every fact not given that can still change it")] = None
    needed_if: Annotated[str | None, Field(description="Which answers make it needed")] = None
    roles_needed: Annotated[list[RoleShown] | None, Field(description="Every party not named that it depends on")] = (
        None
    )
    next_step: str | None = None
    deferral: DeferralShown | None = None
    holdings: list[HoldingShown] | None = None
    elsewhere: list[ElsewhereShown] | None = None
    provenance: list[ProvenanceShown] | None = None


class Answer(BaseModel):
    """The answer for one item; ``must_submit`` names the materials of what its requirements lack, each once, and none that is deferred:
    each person's paper is asked for once over all items asked together."""

    answer: str
    item: str
    item_name: str
    asked_at: str
    as_of: str
    requirements: list[RequirementShown]
    must_submit: list[str]


class Answers(BaseModel):
    """One answer an item, in the order asked."""

    answers: list[Answer]


@router.post(
    "/v1/lookups",
    summary="Ask what is held and what must be submitted",
    tags=["lookups"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Lookup"}}},
        }
    },
    responses={
        200: {"description": "Stored answers", "model": Answers},
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503),
    },
    response_class=Json,
)
async def lookup(request: Request, caller: Caller) -> Response:
    """One complete answer an item, stored before it is given."""
    began = time.perf_counter()
    lang = language.of(request.headers)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return problem("media-type-unsupported", lang, {"expected": "application/json"})
    try:
        asked = bodies.read(Lookup, await request.body())
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False, include_context=False)[0]["type"] == "json_invalid":
            return problem("body-malformed", lang)
        return problem("body-invalid", lang, errors=body_errors(error, Lookup))
    given = await run_in_threadpool(_ask, asked, caller, lang)
    request.app.state.metrics.lookup(given, time.perf_counter() - began)
    whole = b'{"answers":[%s]}' % b",".join(one.body for one in given)
    headers = {"Content-Language": lang, "Cache-Control": "no-store"}
    return Response(whole, media_type="application/json", headers=headers)


def _ask(asked: Lookup, caller: Agreement, lang: Language) -> list[Answered]:
    if asked.case is not None and mentions.names_somebody(asked.case, (asked.id, *asked.roles.values())):
        raise UsageError("case-names-somebody")
    engine = database.engine()
    items = catalogue.expand(asked.items)
    existing(items, caller)
    purpose = caller.admit(items, asked.purpose, dt.datetime.now(dt.UTC))
    question = Question(
        items=items,
        applicant=asked.id,
        client=caller.client,
        purpose=purpose,
        facts=asked.facts,
        roles=asked.roles,
        case=asked.case,
        as_of=asked.as_of,
        language=lang,
    )
    return answers.answered_now(engine, question)


def existing(codes: tuple[str, ...], caller: Agreement) -> None:
    """An item outside the agreement that does not exist is unknown rather than forbidden."""
    strangers = [code for code in codes if code not in caller.items and code not in catalogue.published()]
    if strangers:
        with database.engine().connect() as connection:
            for code in strangers:
                if catalogue.listed(connection, code) is None:
                    raise UsageError("item-unknown", item=catalogue.shown(code))


def body_errors(error: ValidationError, *models: type[BaseModel]) -> list[dict[str, str]]:
    """Where and why, without what was sent: names that are not those of ``models`` become an ellipsis."""
    names = {name for model in models for name in model.model_fields}
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(str(step) if isinstance(step, int) or step in names else "…" for step in item["loc"])
        found.append({"place": place, "reason": item["type"]})
    return list({tuple(entry.items()): entry for entry in found}.values())[:20]
