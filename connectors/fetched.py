"""What every connector gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from connectors.errors import YiciError
from connectors.landing import LandedFile

Cursor = dict[str, Any]
Progress = Callable[[int, int | None], None]
"""Called with what is done and, where known, the total: records for REST, bytes for a database, files for a folder."""


@dataclass(frozen=True)
class Fetched:
    """Landed files in order, the cursor to keep once they are merged (None: leave it), requests sent.

    ``request`` goes into the manifest: how the data was asked for, without secrets or personal identifiers.
    """

    files: list[LandedFile]
    cursor: Cursor | None
    requests: int = 0
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """One step of a connection check. ``advice`` says what to do next when the step failed."""

    step: str
    ok: bool
    detail: str = ""
    advice: str = ""


def failed(step: str, error: YiciError) -> Diagnosis:
    return Diagnosis(step, False, error.message(), error.advice())
