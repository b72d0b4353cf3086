"""``/v1/deposits``: what an applicant hands in, with the scan or the PDF."""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import IO, Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from connectors.errors import UsageError
from connectors.messages import Language
from hub import database, deposits, media, mentions
from hub.agreements import Agreement
from hub.api import bodies, language
from hub.api.guard import Caller
from hub.api.lookups import Plain
from hub.api.responses import Json, documented, problem
from hub.handed_in import Handed

router = APIRouter()

KEY = re.compile(r"[0-9A-Za-z._-]{8,100}")
Line = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=60)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DepositHolder(Strict):
    """Somebody the document names: ``id`` as scheme:value, ``name`` as it stands there."""

    id: Annotated[Plain, Field(examples=["cn.uscc:91310117MA1J3AJ43G"])]
    name: Line | None = None


class DepositEnvelope(Strict):
    """What every certificate may say."""

    certificate_identifier: Line | None = None
    certificate_number: Line | None = None
    name: Line | None = None
    issuer_code: Line | None = None
    issuer_name: Line | None = None
    region: Annotated[str | None, StringConstraints(pattern=r"^[0-9]{6}$")] = None
    issued_on: dt.date | None = None
    valid_from: dt.date | None = None
    valid_to: dt.date | None = None


class DepositMoney(Strict):
    """A sum; ``currency`` by ISO 4217."""

    amount: Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,4})?$")]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Deposit(Strict):
    """What is said of the file beside it. The answer must have looked at this material of one of the holders."""

    answer: Annotated[Plain, Field(description="The `answer` that asked for it; purpose and case are its own")]
    material: Annotated[Plain, Field(examples=["premises-proof"])]
    holders: Annotated[dict[Name, DepositHolder], Field(min_length=1, max_length=10, description="By role")]
    envelope: DepositEnvelope = DepositEnvelope()
    attributes: Annotated[
        dict[Name, Line | bool | int | DepositMoney], Field(max_length=100, description="Of the material, by name")
    ] = {}


class DepositFile(BaseModel):
    """The bytes as they were landed."""

    sha256: str
    size: int
    media_type: str


class OverruledField(BaseModel):
    """In what the word that counts falls short: of the envelope both words, of an attribute (``attributes.…``) only that it does."""

    field: str
    counts: str | None
    deposit: str | None


class Overruled(BaseModel):
    """Whose word on the same certificate counts instead, ``as_of`` when it was said, and what to do about it."""

    source: str
    owner: str | None
    as_of: str
    fields: list[OverruledField]
    advice: str


class DepositShown(BaseModel):
    """A deposit. ``waiting`` until a person verified or rejected it; ``verified`` and not ``held`` when the gate kept it
    back for ``reasons``; ``overruled`` when a register says less of the same certificate, which answers go by. ``signature``: of a PDF (docs/evidence.md says what it means)."""

    deposit: str
    state: Literal["waiting", "verified", "held", "overruled", "rejected"]
    material: str
    answer: str
    case: str | None
    received_at: str
    decided_at: str | None
    file: DepositFile
    signature: Literal["unsigned", "valid", "valid-untrusted", "invalid", "unchecked"]
    holding: str | None
    reasons: list[str]
    overruled: Overruled | None


_FORM = {
    "type": "object",
    "properties": {
        "deposit": {"$ref": "#/components/schemas/Deposit"},
        "file": {"type": "string", "format": "binary", "description": "PDF, OFD, JPEG or PNG, 10 MB at most"},
    },
    "required": ["deposit", "file"],
    "additionalProperties": False,
}
_ENCODING = {"deposit": {"contentType": "application/json"}, "file": {"contentType": ", ".join(media.KINDS)}}


@router.post(
    "/v1/deposits",
    summary="Hand in what an applicant submitted",
    tags=["deposits"],
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _FORM, "encoding": _ENCODING}},
        }
    },
    responses={
        201: {"description": "Received: landed and recorded, to be verified", "model": DepositShown},
        200: {"description": "Received before, with the same key", "model": DepositShown},
        **documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503),
    },
    response_class=Json,
)
async def deposit(
    request: Request,
    caller: Caller,
    key: Annotated[
        str, Header(alias="Idempotency-Key", description="Chosen by the client, one for each deposit; names nobody.")
    ] = "",
) -> Response:
    """Once verified by a person it is held, and the next answer does not ask for it."""
    lang = language.of(request.headers)
    if not KEY.fullmatch(key) or mentions.names_somebody(key):
        raise UsageError("idempotency-key-invalid")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        return problem("media-type-unsupported", lang, {"expected": "multipart/form-data"})
    try:
        form = await request.form(max_files=1, max_fields=1, max_part_size=64 * 1024)
    except (HTTPException, ClientDisconnect):  # Starlette's words for a body that is no such form, or breaks off
        raise UsageError("multipart-malformed") from None
    try:
        said, file = form.get("deposit"), form.get("file")
        if not isinstance(said, str) or not isinstance(file, UploadFile):
            raise UsageError("multipart-malformed")
        if not file.size:
            raise UsageError("multipart-malformed")
        if file.size > deposits.LARGEST:
            raise UsageError("deposit-too-large", megabytes=deposits.LARGEST >> 20)
        try:
            given = bodies.read(Deposit, said)
        except ValidationError as error:
            code = error.errors(include_url=False, include_input=False, include_context=False)[0]["type"]
            return problem("body-malformed" if code == "json_invalid" else "body-invalid", lang)
        if mentions.names_somebody(key, [one.id for one in given.holders.values()]):
            raise UsageError("idempotency-key-invalid")
        media_type = (file.content_type or "").partition(";")[0].strip().lower()
        received = functools.partial(_received, caller, key, given, file.file, media_type, lang)
        found, new = await to_thread.run_sync(received, limiter=request.app.state.depositing)
    finally:
        await form.close()
    headers = {"Location": f"/v1/deposits/{found['deposit']}", "Cache-Control": "no-store"}
    return Json(found, status_code=201 if new else 200, headers=headers)


def _received(
    caller: Agreement, key: str, given: Deposit, file: Any, media_type: str, lang: Language
) -> tuple[dict[str, Any], bool]:
    spooled: IO[bytes] = file
    getattr(spooled, "rollover", lambda: None)()  # onto the disk: its signatures are read by another process
    handed = Handed(
        given.answer,
        given.material,
        {role: (one.id, one.name) for role, one in given.holders.items()},
        given.envelope.model_dump(mode="json", exclude_none=True),
        {name: one.model_dump() if isinstance(one, DepositMoney) else one for name, one in given.attributes.items()},
    )
    return deposits.receive(database.engine(), caller, key, handed, spooled, media_type, lang)


@router.get(
    "/v1/deposits/{deposit}",
    summary="What became of a deposit",
    tags=["deposits"],
    responses={
        200: {"description": "The deposit", "model": DepositShown},
        **documented(401, 403, 404, 408, 413, 422, 429, 500, 503),
    },
    response_class=Json,
)
def show(
    request: Request, caller: Caller, named: Annotated[str, Path(alias="deposit", description="Its id.")]
) -> Response:
    """To the client it came through, while its agreement names what it is about; to any other it does not exist."""
    with database.engine().connect() as connection:
        found = deposits.of_client(connection, caller, named, language.of(request.headers))
    return Json(found, headers={"Cache-Control": "no-store"})
