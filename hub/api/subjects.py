"""``POST /v1/subjects/view``: what is held about somebody, for that somebody's eyes."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from connectors.errors import UsageError
from hub import database, subject_view
from hub.api import bodies, language
from hub.api.deposits import DepositShown
from hub.api.guard import Caller
from hub.api.lookups import Plain, ProvenanceShown
from hub.api.responses import Json, documented, problem
from hub.subject_view import LARGEST, LIMIT, Section

router = APIRouter()


class SubjectView(BaseModel):
    """Whose view. The identifier stands in the body only, never in an address."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[Plain, Field(description="scheme:value", examples=["cn.uscc:91310117MA1J3AJ43G"])]
    purpose: Annotated[Plain | None, Field(description="May be left out if the agreement has one only")] = None
    section: Annotated[Section | None, Field(description="This one alone")] = None
    after: Annotated[
        str | None, StringConstraints(max_length=200), Field(description="`next` of the page before, of a section")
    ] = None
    limit: Annotated[int, Field(ge=1, le=LARGEST, description="Entries of a section")] = LIMIT


class HeldShown(BaseModel):
    """A certificate. ``owner``: of the source that says so; ``as_of``: when it was last heard; ``hub``: a partner's."""

    holding: str
    material: str
    material_name: str
    as_: Annotated[list[str], Field(alias="as")]
    status: str
    valid_from: str | None
    valid_to: str | None
    region: str | None
    conflicting: bool
    hub: str | None
    source: str
    owner: str | None
    as_of: str | None
    provenance: list[ProvenanceShown]


class AskedShown(BaseModel):
    """An answer that was given about this person, or one in which they were named beside the applicant: ``as`` says as what.
    Of the latter ``case`` and ``must_submit`` are somebody else's, and null."""

    answer: str
    as_: Annotated[list[str], Field(alias="as")]
    at: str
    client: str
    client_name: str | None
    purpose: str
    case: str | None
    item: str
    item_name: str | None
    must_submit: list[str] | None


class FetchedShown(BaseModel):
    """Evidence that was given out of a certificate that names this person. ``receiver``: the partner hub that asked for it;
    ``provider``: the partner hub that it was fetched from; ``message``: by which both hubs' ledgers know it. ``case`` is null
    where the matter is somebody else's."""

    holding: str
    material: str
    material_name: str
    fields: list[str]
    at: str
    client: str
    client_name: str | None
    receiver: str | None
    provider: str | None
    purpose: str
    case: str | None
    item: str
    answer: str
    message: str | None


class ViewedShown(BaseModel):
    """A view such as this one."""

    at: str
    client: str
    client_name: str | None
    purpose: str


class HeldPage(BaseModel):
    entries: list[HeldShown]
    next: str | None


class AskedPage(BaseModel):
    entries: list[AskedShown]
    next: str | None


class FetchedPage(BaseModel):
    entries: list[FetchedShown]
    next: str | None


class DepositsPage(BaseModel):
    entries: list[DepositShown]
    next: str | None


class ViewsPage(BaseModel):
    entries: list[ViewedShown]
    next: str | None


class SubjectShown(BaseModel):
    """One page of each section, newest first. ``identity``: ``contradictory`` where what is known of the person does not fit
    together; then only what bears this very identifier is shown."""

    identity: str
    held: HeldPage | None = None
    asked: AskedPage | None = None
    fetched: FetchedPage | None = None
    deposits: DepositsPage | None = None
    views: ViewsPage | None = None


@router.post(
    "/v1/subjects/view",
    summary="Show somebody what is held about them",
    tags=["subjects"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SubjectView"}}},
        }
    },
    responses={
        200: {"description": "What is held, who asked, what was fetched and handed in", "model": SubjectShown},
        **documented(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
    },
    response_class=Json,
)
async def view(request: Request, caller: Caller) -> Response:
    """Only through a client whose agreement says so, which has made sure who is looking. Each view is recorded."""
    lang = language.of(request.headers)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return problem("media-type-unsupported", lang, {"expected": "application/json"})
    try:
        asked = bodies.read(SubjectView, await request.body())
    except ValidationError as error:
        code = error.errors(include_url=False, include_input=False, include_context=False)[0]["type"]
        return problem("body-malformed" if code == "json_invalid" else "body-invalid", lang)
    if not caller.own_view:
        raise UsageError("own-view-not-agreed")
    purpose = caller.admit((), asked.purpose, dt.datetime.now(dt.UTC))
    shown = await run_in_threadpool(
        subject_view.view, database.engine(), asked.id, client=caller.client, purpose=purpose, section=asked.section,
        after=asked.after, limit=asked.limit, lang=lang,
    )  # fmt: skip
    return Json(shown, headers={"Content-Language": lang, "Cache-Control": "no-store"})
