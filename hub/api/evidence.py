"""``GET /v1/evidence/{holding}``: a certificate that an answer found held, signed, for the case of that answer."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from hub import database, evidence
from hub.api import language
from hub.api.guard import Caller
from hub.api.responses import documented, problem

router = APIRouter()
GRANT, SIGNATURE, DIGEST = "Yici-Grant", "Yici-Signature", "Content-Digest"


class EvidenceSource(BaseModel):
    """Who says so, in which row; ``as_of``: when it was last heard to the end, ``late``: longer ago than it promised."""

    source: str
    file: str
    row: int
    updated_at: str
    as_of: str | None
    late: bool
    conflicting: bool


class EvidenceGiven(BaseModel):
    """To whom and for what."""

    hub: str
    client: str
    purpose: str
    case: str | None
    item: str
    answer: str
    at: str


class EvidenceShown(BaseModel):
    """A certificate with the ``fields`` that the agreement allows; ``version`` changes when anything in it does."""

    holding: str
    material: str
    certificate: dict[str, Any]
    fields: list[str]
    version: str
    source: EvidenceSource
    given: EvidenceGiven


@router.get(
    "/v1/evidence/{holding}",
    summary="Fetch a certificate that an answer found held",
    tags=["evidence"],
    responses={
        200: {
            "description": "The certificate, recorded before it was sent",
            "model": EvidenceShown,
            "headers": {
                SIGNATURE: {
                    "description": "The hub's signature of the body: a JWS without its payload (docs/evidence.md)",
                    "schema": {"type": "string"},
                },
                DIGEST: {"description": "SHA-256 of the body (RFC 9530)", "schema": {"type": "string"}},
            },
        },
        **documented(401, 403, 408, 409, 413, 422, 429, 500, 503),
    },
    response_class=Response,
)
def fetch(
    request: Request,
    caller: Caller,
    holding: str,
    grant: Annotated[str, Header(alias=GRANT, description="The `answer` that found it held.")] = "",
    fields: Annotated[
        str | None, Query(max_length=4000, description="Only these of the fields agreed, separated by commas.")
    ] = None,
) -> Response:
    """Once for each certificate of an answer, within the minutes of the agreement. What it may show is agreed field by field."""
    wanted = None if fields is None else [name.strip() for name in fields.split(",") if name.strip()]
    if wanted == []:  # nothing would be shown, and the grant used up
        wrong = [{"place": "fields", "reason": "too_short"}]
        return problem("query-invalid", language.of(request.headers), errors=wrong)
    given = evidence.fetch(database.engine(), caller.client, holding, grant, wanted)
    digest = base64.b64encode(given.digest).decode()
    headers = {SIGNATURE: given.signature, DIGEST: f"sha-256=:{digest}:", "Cache-Control": "no-store"}
    return Response(given.body, media_type="application/json", headers=headers)
