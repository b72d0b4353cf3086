"""The language a caller wants: Chinese or English by ``Accept-Language`` (RFC 9110), else the server's own."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from connectors import messages
from connectors.messages import Language


def of(headers: Headers) -> Language:
    best: tuple[float, Language] | None = None
    for part in headers.get("accept-language", "")[:200].split(","):
        tag, _, parameter = part.strip().partition(";")
        name = tag.strip().lower().partition("-")[0]
        share = weight(parameter)
        if name in ("zh", "en") and share > 0 and (best is None or share > best[0]):
            best = share, "zh" if name == "zh" else "en"
    return best[1] if best else messages.language()


def weight(parameter: str) -> float:
    """What follows a choice in an ``Accept…`` header: 1 without a ``q``, 0 when it cannot be read."""
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(float(value), 1.0)
    except ValueError:
        return 0.0


def wanted(request: Request) -> Language:
    """The same as a dependency of a route."""
    return of(request.headers)


def of_scope(scope: Scope) -> Language:
    return of(Headers(scope=scope))
