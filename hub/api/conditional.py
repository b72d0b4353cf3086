"""Reads that a caller may keep: an ETag over the bytes, and 304 as long as they are the same (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import orjson
from fastapi import Header
from starlette.responses import Response

from connectors.messages import Language

# What a caller keeps it has to ask about each time: an agreement may have ended, a version begun.
CACHE = "private, no-cache"
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified: the ETag given is still right"}}
Known = Annotated[str | None, Header(alias="If-None-Match", description="ETags of what the caller has.")]


def json(body: Any, known: str | None, lang: Language, *, vary: str = "Accept-Language") -> Response:
    """``body`` as JSON, or 304 when the caller has it."""
    return answer(orjson.dumps(body), "application/json", known, lang, vary=vary)


def answer(
    body: bytes,
    media_type: str,
    known: str | None,
    lang: Language,
    *,
    vary: str = "Accept-Language",
    headers: dict[str, str] | None = None,
) -> Response:
    """``body`` with its ETag, or 304 when ``known`` (If-None-Match) names it."""
    digest = hashlib.sha256(b"\0".join((media_type.encode(), lang.encode(), body))).hexdigest()
    tag = f'"{digest[:32]}"'
    more = {"ETag": tag, "Vary": vary, "Cache-Control": CACHE, "Content-Language": lang, **(headers or {})}
    if known is not None and _names(known, tag):
        return Response(status_code=304, headers=more)
    return Response(body, media_type=media_type, headers=more)


def _names(known: str, tag: str) -> bool:
    tags = [part.strip() for part in known.split(",")]
    return "*" in tags or tag in (part.removeprefix("W/") for part in tags)
