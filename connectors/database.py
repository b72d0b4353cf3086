"""One table or view of a PostgreSQL database, copied out as CSV in one read-only transaction.

Cursor: ``{"watermark": time}``, the database's own clock when the transaction began. The overlap covers transactions
that were open at that moment; rows without a watermark are read each time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, columns_expected, failed
from connectors.landing import Landing
from connectors.source import DatabaseOptions, Source

# classes of SQLSTATE after which the same statement may succeed: connection, resources, shutdown, rollback
RETRIABLE = ("08", "53", "57", "40", "55")


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands the rows changed since ``cursor`` as one CSV file, streamed; null and empty string stay apart.

    RetriableError when the database does not answer or is busy, FatalError when it refuses.
    """
    options = _options(source)
    since = _since(cursor, options)
    with _translated(source), _connected(connection, options) as session:
        query = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')").format(_select(source, since))
        now = _clock(session)
        with session.cursor().copy(query) as copy:
            landed = landing.put(_counted(copy, progress), f"{source.name}.csv")
    request = {"table": options.table, "since": since.isoformat() if since else None, "until": now.isoformat()}
    return Fetched([landed], {"watermark": now.isoformat()}, 1, request)


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Can the database be reached, does it let us in, is the table there with its columns?"""
    options = _options(source)
    steps = []
    try:
        with _translated(source), _connected(connection, options) as session:
            version = session.info.parameter_status("server_version") or "?"
            steps.append(Diagnosis("connect", True, f"PostgreSQL {version}"))
            with session.cursor() as cursor:
                cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(_table(options)))
                found = [column.name for column in cursor.description or []]
                steps.append(Diagnosis("table", True, f"{options.table}: {'≥ 1' if cursor.fetchone() else '0'}"))
    except YiciError as error:
        return [*steps, failed("table" if steps else "connect", error)]
    # the table may hold more than was agreed: only the agreed columns are ever read
    wanted = [name for name in found if name in options.columns] if options.columns else found
    return [*steps, columns_expected(source, wanted)]


def _options(source: Source) -> DatabaseOptions:
    assert isinstance(source.options, DatabaseOptions)
    return source.options


def _since(cursor: Cursor | None, options: DatabaseOptions) -> dt.datetime | None:
    if not cursor or not options.watermark:
        return None
    return dt.datetime.fromisoformat(cursor["watermark"]) - options.overlap


def _table(options: DatabaseOptions) -> sql.Identifier:
    return sql.Identifier(*(part for part in (options.db_schema, options.table) if part))


def _select(source: Source, since: dt.datetime | None) -> sql.Composable:
    options = _options(source)
    columns: sql.Composable = sql.SQL(", ").join(map(sql.Identifier, options.columns))
    query: sql.Composable = sql.SQL("SELECT {} FROM {}").format(
        columns if options.columns else sql.SQL("*"), _table(options)
    )
    mark = sql.Identifier(options.watermark) if options.watermark else None
    if mark and since:
        query += sql.SQL(" WHERE {mark} >= {since} OR {mark} IS NULL").format(mark=mark, since=sql.Literal(since))
    order = [mark] if mark else []
    return query + sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join([*order, *map(sql.Identifier, source.row_key)]))


@contextmanager
def _connected(connection: Connection, options: DatabaseOptions) -> Iterator[psycopg.Connection[Any]]:
    url = make_url(connection.url)
    parameters: dict[str, Any] = {
        "connect_timeout": options.connect_seconds,
        "application_name": "yici",
        # a server that died without a word must not hold the run for hours
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "host": url.host,
        "port": url.port,
        "dbname": url.database,
        "user": connection.username,
        "password": connection.password,
        **url.query,
    }
    session = psycopg.connect(**{key: value for key, value in parameters.items() if value is not None})
    try:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.read_only = True
        milliseconds = str(round(options.statement_seconds * 1000))
        session.execute(
            "SELECT set_config('statement_timeout', %s, true), set_config('TimeZone', 'UTC', true), "
            "set_config('DateStyle', 'ISO, YMD', true), set_config('client_encoding', 'UTF8', true)",
            [milliseconds],
        )
        yield session
    finally:
        session.close()


def _clock(session: psycopg.Connection[Any]) -> dt.datetime:
    row = session.execute("SELECT transaction_timestamp()").fetchone()
    assert row is not None
    moment: dt.datetime = row[0]
    return moment.astimezone(dt.UTC)


def _counted(copy: psycopg.Copy, progress: Progress | None) -> Iterator[bytes]:
    size = 0
    for chunk in copy:
        size += len(chunk)
        if progress:
            progress(size, None)
        yield bytes(chunk)


@contextmanager
def _translated(source: Source) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        _raise(source, error)


def _raise(source: Source, error: psycopg.Error) -> NoReturn:
    """Names what to do next. The server's own words are left out: they may quote values of a row."""
    options = _options(source)
    state = error.sqlstate or ""
    text = str(error)
    if isinstance(error, psycopg.errors.QueryCanceled):
        raise RetriableError("database-slow", source=source.name, seconds=options.statement_seconds) from None
    if state.startswith("28") or (not state and ("authentication failed" in text or "no pg_hba.conf" in text)):
        raise FatalError("database-login", source=source.name, connection=source.connection) from None
    if state == "3D000" or (not state and "does not exist" in text):
        raise FatalError("database-login", source=source.name, connection=source.connection) from None
    if state == "42501":
        raise FatalError("database-permission", source=source.name, table=options.table) from None
    if state in ("42P01", "3F000"):
        raise FatalError("database-table", source=source.name, table=options.table) from None
    if state == "42703":
        raise FatalError(
            "database-column", source=source.name, table=options.table, columns=", ".join(options.columns)
        ) from None
    if not state or state.startswith(RETRIABLE):
        raise RetriableError("database-unreachable", source=source.name, state=state or "-") from None
    raise FatalError("database-failed", source=source.name, state=state) from None
