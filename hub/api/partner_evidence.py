"""``POST /v1/evidence/{holding}`` and ``POST /v1/evidence``: a certificate that a partner hub holds, asked of that hub.

POST, since whose it is has to be said again, in the body: nobody here keeps identifiers of whom an answer was about.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from hub import database
from hub.agreements import Agreement
from hub.api import bodies, language
from hub.api.evidence import DIGEST, GRANT, SIGNATURE, EvidenceShown
from hub.api.guard import Caller
from hub.api.lookups import Plain, body_errors
from hub.api.responses import documented, problem
from hub.exchange import evidence_asking
from hub.exchange.evidence import FIELDS, Consent
from hub.exchange.evidence_asking import LONGEST, SECONDS, Relayed
from hub.exchange.evidence_grants import Wanted

router = APIRouter()
ENVELOPE = "Yici-Envelope"
Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]


class ConsentGiven(BaseModel):
    """That the person agrees, where the agreement with the partner hub wants it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    reference: Annotated[
        str,
        StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
        Field(description="Under which it is filed; names nobody"),
    ]
    at: Annotated[AwareDatetime, Field(description="Since when")]
    method: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=80),
        Field(description="How it was given", examples=["signed-form"]),
    ]


class EvidenceWanted(BaseModel):
    """Whose certificate, and how much of it. Identifiers stand in the body only, never in an address."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[
        Plain | Annotated[dict[Plain, Plain], Field(min_length=1, max_length=20)],
        Field(
            description="scheme:value of the party it was found for, alone or by role in the answer",
            examples=["cn.uscc:91310117MA1J3AJ43G"],
        ),
    ]
    fields: Annotated[list[Plain] | None, Field(max_length=FIELDS, description="Only these of the fields agreed")] = (
        None
    )
    consent: ConsentGiven | None = None
    seconds: Annotated[float, Field(ge=1, le=LONGEST, description="How long the caller waits")] = SECONDS


class EvidenceUnannounced(EvidenceWanted):
    """The same of what no index told of: ``hub`` is asked for ``material``."""

    hub: Code
    material: Code


def _described(body: type[BaseModel]) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_RESPONSES = {
    200: {
        "description": "The certificate as the partner hub signed it, recorded before it was sent",
        "model": EvidenceShown,
        "headers": {
            ENVELOPE: {
                "description": "The partner's signed envelope around the digest of the body (docs/evidence.md)",
                "schema": {"type": "string"},
            },
            SIGNATURE: {
                "description": "This hub's signature instead, where the partner said more than is known here and passed on",
                "schema": {"type": "string"},
            },
            DIGEST: {"description": "SHA-256 of the body (RFC 9530)", "schema": {"type": "string"}},
        },
    },
    **documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503),
}
Grant = Annotated[str, Header(alias=GRANT, description="The `answer` that asks for it.")]


@router.post(
    "/v1/evidence/{holding}",
    summary="Fetch a certificate that an answer found at a partner hub",
    tags=["evidence"],
    openapi_extra=_described(EvidenceWanted),
    responses=_RESPONSES,
    response_class=Response,
)
async def fetch(request: Request, caller: Caller, holding: str, grant: Grant = "") -> Response:
    """By its `handle` in the answer. Once for each certificate of an answer; a partner that fails uses nothing up."""
    return await _relayed(request, caller, grant, EvidenceWanted, holding)


@router.post(
    "/v1/evidence",
    summary="Ask a partner hub for a certificate that no index tells of",
    tags=["evidence"],
    openapi_extra=_described(EvidenceUnannounced),
    responses=_RESPONSES,
    response_class=Response,
)
async def ask(request: Request, caller: Caller, grant: Grant = "") -> Response:
    """Where an answer left a material open or asks to submit it, because nothing here could know."""
    return await _relayed(request, caller, grant, EvidenceUnannounced)


async def _relayed(
    request: Request, caller: Agreement, grant: str, form: type[EvidenceWanted], handle: str | None = None
) -> Response:
    came, lang = dt.datetime.now(dt.UTC), language.of(request.headers)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return problem("media-type-unsupported", lang, {"expected": "application/json"})
    try:
        said = bodies.read(form, await request.body())
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False, include_context=False)[0]["type"] == "json_invalid":
            return problem("body-malformed", lang)
        return problem("body-invalid", lang, errors=body_errors(error, form, ConsentGiven))
    consent = Consent(said.consent.reference, said.consent.at, said.consent.method) if said.consent else None
    hub, material = (said.hub, said.material) if isinstance(said, EvidenceUnannounced) else (None, None)
    wanted = Wanted(said.id, handle, hub, material, said.fields, consent)
    until = came + dt.timedelta(seconds=said.seconds)
    fetched = functools.partial(evidence_asking.fetch, database.engine(), caller.client, grant, wanted, until)
    # Few at once: a partner that lets everybody wait must not take the threads of all other routes.
    found: Relayed = await to_thread.run_sync(fetched, limiter=request.app.state.asking)
    digest = base64.b64encode(found.digest).decode()
    signed = {SIGNATURE: found.signature} if found.signature else {ENVELOPE: found.envelope}
    headers = {**signed, DIGEST: f"sha-256=:{digest}:", "Cache-Control": "no-store"}
    return Response(found.body, media_type="application/json", headers=headers)
