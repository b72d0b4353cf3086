"""``POST /oauth2/token``: client credentials (RFC 6749, section 4.4), by HTTP Basic or in the form."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from anyio import to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from hub import agreements, database, tokens
from hub.api import guard, language
from hub.api.responses import Json, documented, problem

FORM = "application/x-www-form-urlencoded"
LONGEST = 200

router = APIRouter()


@dataclass(frozen=True)
class Credentials:
    client: str
    secret: str


_FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "grant_type": {"type": "string", "const": "client_credentials"},
        "client_id": {"type": "string"},
        "client_secret": {"type": "string", "format": "password"},
        "scope": {"const": "lookup", "default": "lookup"},
    },
    "required": ["grant_type"],
}
_TOKEN_SCHEMA = {
    "type": "object",
    "properties": {
        "access_token": {"type": "string"},
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer"},
        "scope": {"const": "lookup"},
    },
    "required": ["access_token", "token_type", "expires_in"],
}


@router.post(
    guard.TOKEN_URL,
    summary="Get an access token",
    tags=["clients"],
    openapi_extra={"requestBody": {"required": True, "content": {FORM: {"schema": _FORM_SCHEMA}}}},
    responses={
        200: {"description": "An access token", "content": {"application/json": {"schema": _TOKEN_SCHEMA}}},
        **documented(400, 401, 408, 413, 415, 429, 500, 503),
    },
    response_class=Json,
)
async def token(request: Request) -> Response:
    """An access token for the client whose credentials are given."""
    lang = language.of(request.headers)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        return problem("media-type-unsupported", lang, {"expected": FORM})
    try:
        form = parse_qs((await request.body()).decode("ascii"), max_num_fields=20, errors="strict")
    except (UnicodeDecodeError, ValueError):
        return problem("body-malformed", lang, error="invalid_request")
    if form.get("grant_type") != ["client_credentials"]:
        return problem("grant-unsupported", lang, error="unsupported_grant_type")
    if form.get("scope", [tokens.SCOPE]) != [tokens.SCOPE]:
        return problem("scope-unsupported", lang, error="invalid_scope")
    given = _credentials(request, form)
    address = request.client.host if request.client else "-"
    attempts: guard.Attempts = request.app.state.attempts
    if given is not None:
        attempts.check(address, given.client)  # at once, where others queue
        if await to_thread.run_sync(_fits, attempts, address, given, limiter=request.app.state.authenticating):
            made = tokens.issue(given.client)
            body: dict[str, Any] = {
                "access_token": made.text,
                "token_type": "Bearer",
                "expires_in": made.seconds,
                "scope": tokens.SCOPE,
            }
            return Json(body, headers={"Cache-Control": "no-store"})
    request.app.state.metrics.refused.inc()
    headers = {"WWW-Authenticate": 'Basic realm="yici"'}
    return problem("client-refused", lang, headers=headers, error="invalid_client")


def _fits(attempts: guard.Attempts, address: str, given: Credentials) -> bool:
    with attempts.trying(address, given.client) as attempt:
        attempt.fits = agreements.authenticate(database.engine(), given.client, given.secret)
        return attempt.fits


def _credentials(request: Request, form: dict[str, list[str]]) -> Credentials | None:
    """From the header or the form, never both."""
    header = request.headers.get("authorization")
    in_form = [form[name] for name in ("client_id", "client_secret") if name in form]
    if header is not None:
        if "client_secret" in form or not header.lower().startswith("basic "):
            return None
        try:
            client, colon, secret = base64.b64decode(header[6:].strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        found = Credentials(unquote_plus(client), unquote_plus(secret)) if colon else None
    elif len(in_form) == 2 and all(len(values) == 1 for values in in_form):
        found = Credentials(in_form[0][0], in_form[1][0])
    else:
        return None
    if found is None or not found.client or len(found.client) > LONGEST or len(found.secret) > LONGEST:
        return None
    return found
