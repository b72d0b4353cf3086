"""A REST interface of a department: JSON pages of what changed, with OAuth2 client credentials.

How it pages is said in source.yml: by number (:mod:`connectors.numberedpages`) or by token (:mod:`connectors.cursorpages`);
each keeps its own cursor.
"""

from __future__ import annotations

from types import ModuleType

from connectors import cursorpages, jsonpages, numberedpages, reach
from connectors.connections import Connection
from connectors.department import Department
from connectors.errors import FatalError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, columns_expected, failed
from connectors.landing import Landing
from connectors.restpages import options_of
from connectors.source import Source


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands every page of what changed since ``cursor``, each as it came.

    RetriableError when the server does not answer, is busy or answers rubbish to every try; FatalError when it refuses
    or its answers contradict each other.
    """
    with Department(source, connection) as department:
        fetched: Fetched = _paging(source).fetch(department, cursor, landing, progress)
    return fetched


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Name, port, certificate, login, one record, its columns; stops at the first that fails."""
    steps = list(reach.steps(source, connection, options_of(source).connect_seconds))
    if not all(step.ok for step in steps):
        return steps
    step = "login"
    try:
        with Department(source, connection) as department:
            department.log_in()
            steps.append(Diagnosis(step, True, connection.username or "-"))
            step = "record"
            body, count = _paging(source).one(department)
        found = _found(source, body)
    except YiciError as error:
        return [*steps, failed(step, error)]
    steps.append(Diagnosis(step, True, count))
    return [*steps, columns_expected(source, found)] if found else steps


def _paging(source: Source) -> ModuleType:
    return {"pages": numberedpages, "cursor": cursorpages}[options_of(source).paging]


def _found(source: Source, body: bytes) -> list[str]:
    """The columns of the record on the page; none when there is no record."""
    options = options_of(source)
    block = jsonpages.block(body, source.name, options.records, options.columns)
    if block.malformed.num_rows:
        raise FatalError("rest-form", source=source.name, path=options.path, keys=options.records)
    return block.table.column_names[:-1] if block.table.num_rows else []
