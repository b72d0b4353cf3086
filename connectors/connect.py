"""One entrance to every kind of source; a connector's libraries are imported only when it is used."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

from connectors import connections
from connectors.errors import YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, failed
from connectors.landing import Landing
from connectors.source import Source

__all__ = ["Cursor", "Diagnosis", "Fetched", "Progress", "check", "fetch"]


def _connector(source: Source) -> ModuleType:
    return import_module(f"connectors.{source.connector}")


def fetch(
    source: Source,
    *,
    cursor: Cursor | None,
    landing: Landing,
    input: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Lands what is new at the source since ``cursor`` (None: everything).

    With ``input``, a file or a folder of files in the form the source lands, the source itself is not asked and
    ``Fetched.cursor`` is None: the stored cursor stays.
    """
    if input is not None:
        from connectors import files

        return files.land_input(source, os.fspath(input), landing, progress)
    fetched: Fetched = _connector(source).fetch(
        source, connections.resolve(source.connection), cursor, landing, progress
    )
    return fetched


def check(source: Source) -> list[Diagnosis]:
    """Tests the connection step by step and stops at the first step that fails; fetches and stores nothing."""
    try:
        connection = connections.resolve(source.connection)
    except YiciError as error:
        return [failed("connection", error)]
    steps: list[Diagnosis] = _connector(source).check(source, connection)
    return [Diagnosis("connection", True, connection.name), *steps]
