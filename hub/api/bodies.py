"""A JSON body that says one thing: an object in which a name stands twice is refused, whichever of both was meant (RFC 7493, 2.3).

Parsers take the last of them silently, those of a gateway or a log perhaps the first: an identifier could be checked there and
another be asked about here.
"""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel

from connectors.errors import UsageError

Form = TypeVar("Form", bound=BaseModel)


def read(form: type[Form], body: bytes | str) -> Form:
    """``body`` as ``form``. UsageError ``body-repeats``; pydantic's ValidationError."""
    given = form.model_validate_json(body)
    require_unrepeated(body)
    return given


def require_unrepeated(body: bytes | str) -> None:
    """That no object of ``body``, which is valid JSON, has a name twice. UsageError ``body-repeats``."""
    json.loads(body, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise UsageError("body-repeats")


def plain(body: bytes, colons: int) -> bool:
    """Whether ``body`` has no name twice, told without reading it again: a member has one colon outside of strings. ``colons``: of
    the members that were read and within their strings. False where it cannot be told so."""
    return body.count(b":") == colons and b"\\" not in body
