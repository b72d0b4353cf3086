"""What every connector gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from connectors.errors import FatalError, YiciError
from connectors.landing import LandedFile
from connectors.source import Source

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
    """One step of a connection check. ``advice`` says what to do next when the step failed; with one that did not, what
    somebody may want to do all the same."""

    step: str
    ok: bool
    detail: str = ""
    advice: str = ""


def failed(step: str, error: YiciError) -> Diagnosis:
    return Diagnosis(step, False, error.message(), error.advice())


def columns_expected(source: Source, found: list[str]) -> Diagnosis:
    """The check's last step: the columns found are those of the agreement."""
    expected = source.options.agreed
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if expected and name not in expected]
    if missing or unknown:
        error = FatalError(
            "columns-differ", source=source.name, missing=", ".join(missing) or "-", unknown=", ".join(unknown) or "-"
        )
        return failed("columns", error)
    return Diagnosis("columns", True, ", ".join(found))
