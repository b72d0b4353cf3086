"""One entrance to every kind of source; a connector's libraries are imported only when it is used."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from connectors import connections
from connectors.errors import YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, failed
from connectors.landing import Landing
from connectors.source import Source

if TYPE_CHECKING:
    from connectors.channel import Channel

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
    channel: Channel | None = None,
) -> Fetched:
    """Lands what is new at the source since ``cursor`` (None: everything). ``channel``: to the partner hub, where it is one.

    With ``input``, a file or a folder of files in the form the source lands, the source itself is not asked and
    ``Fetched.cursor`` is None: the stored cursor stays.
    """
    if input is not None:
        from connectors import files

        return files.land_input(source, os.fspath(input), landing, progress)
    way = channel or connections.resolve(source.connection)
    fetched: Fetched = _connector(source).fetch(source, way, cursor, landing, progress)
    return fetched


def check(source: Source, channel: Channel | None = None) -> list[Diagnosis]:
    """Tests the connection step by step and stops at the first step that fails; fetches and stores nothing."""
    if channel is not None:
        over: list[Diagnosis] = _connector(source).check(source, channel)
        return over
    try:
        connection = connections.resolve(source.connection)
    except YiciError as error:
        return [failed("connection", error)]
    steps: list[Diagnosis] = _connector(source).check(source, connection)
    return [Diagnosis("connection", True, connection.name), *steps]
