"""Responses: JSON as UTF-8, problems as ``application/problem+json``, and how both stand in the OpenAPI document."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import JSONResponse

from connectors import messages
from connectors.errors import YiciError
from connectors.messages import Language
from hub import problems
from hub.exchange import caller
from hub.exchange.caller import PartnerFailed, PartnerProblem

RETRY_SECONDS = 5
CHALLENGE = 'Bearer realm="yici"'


class Json(JSONResponse):
    """Any JSON value."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class Problem(Json):
    """One problem document; 503 says when to try again, 401 what to authenticate with."""

    media_type = problems.MEDIA_TYPE

    def __init__(self, document: dict[str, Any], lang: Language, headers: dict[str, str] | None = None) -> None:
        status = document["status"]
        more = {"Content-Language": lang, "Vary": "Accept-Language", "Cache-Control": "no-store", **(headers or {})}
        if status == 503:
            more.setdefault("Retry-After", str(RETRY_SECONDS))
        if status == 401:
            more.setdefault("WWW-Authenticate", CHALLENGE)
        super().__init__(document, status_code=status, headers=more)


def problem(
    code: str,
    lang: Language,
    values: dict[str, object] | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Problem:
    return Problem(problems.document(code, lang, values, **more), lang, headers)


SHARING = "/delta/"  # addresses of Delta Sharing, whose clients know no problem documents
# Codes that are told in other words there: the token endpoint gives none that opens a share.
_SHARING_WORDS = {"token-missing": "share-token-missing", "token-invalid": "share-token-invalid"}


def sharing_problem(
    code: str, lang: Language, values: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
) -> Json:
    """The same in the form of Delta Sharing."""
    said = problem(code, lang, dict(values or {}), dict(headers or {}))
    if code in ("too-many-attempts", "rate-exceeded") and values:
        said.headers["Retry-After"] = str(values["seconds"])
    kept = {name: said.headers[name] for name in _KEPT if name in said.headers}
    told = _SHARING_WORDS.get(code, code)
    words = [messages.text(told, lang, **(values or {})), messages.advice(told, lang, **(values or {}))]
    message = " ".join(part for part in words if part)
    return Json({"errorCode": code, "message": message}, status_code=said.status_code, headers=kept)


def refused(
    path: str, code: str, lang: Language, values: dict[str, object] | None = None, headers: dict[str, str] | None = None
) -> Json:
    """:func:`problem` in the form that goes with the address ``path``."""
    return (sharing_problem if path.startswith(SHARING) else problem)(code, lang, values, headers)


_KEPT = ("Content-Language", "Vary", "Cache-Control", "Retry-After", "WWW-Authenticate", "Connection", "Allow")


def from_error(error: YiciError, lang: Language) -> Problem:
    headers = {}
    if error.code == "token-invalid":
        headers["WWW-Authenticate"] = f'{CHALLENGE}, error="invalid_token"'
    if error.code in ("too-many-attempts", "rate-exceeded"):
        headers["Retry-After"] = str(error.values["seconds"])
    if error.code in ("body-slow", "deposit-too-large"):  # the rest of the body is not read any more
        headers["Connection"] = "close"
    if error.code == "partner-resting":
        rest = dt.datetime.fromisoformat(str(error.values["until"])) - dt.datetime.now(dt.UTC)
        headers["Retry-After"] = str(max(1, math.ceil(rest.total_seconds())))
    if isinstance(error, PartnerProblem | PartnerFailed):
        return Problem(_of_partner(error, lang), lang, headers)
    return Problem(problems.of(error, lang), lang, headers)


def _of_partner(error: YiciError, lang: Language) -> dict[str, Any]:
    """What a partner hub replied instead of what was asked of it, in the caller's language: whose fault that hub says it is."""
    code, told = str(error.values["code"]), error.values["told"]
    values = {**error.values, "reason": caller.reason(code, told if isinstance(told, dict) else {}, lang)}
    partner = {"hub": error.values["peer"], "code": code, "fault": error.values["fault"]}
    return problems.document(error.code, lang, values, partner=partner)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route for the OpenAPI document."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        codes = sorted(code for code, kind in problems.KINDS.items() if kind.status == status)
        found[status] = {"description": ", ".join(codes), "content": content}
        if status in (429, 503):
            found[status]["headers"] = {
                "Retry-After": {"description": "Seconds to wait", "required": True, "schema": {"type": "integer"}}
            }
    return found
