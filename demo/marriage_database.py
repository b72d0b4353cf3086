"""The civil affairs bureau 民政 of the demo: a PostgreSQL database with marriages and the roster of allowances, and a role
that can only read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors.errors import FatalError
from demo import allowances, marriages
from demo.writers import digest

DATABASE, READER = "mca_marriages", "mca_reader"
LOCK = 0x79696369  # "yici": databases and roles are made by one process at a time


@dataclass(frozen=True)
class Table:
    """One table of the bureau: all of it text but ``moment``, the time it is read by."""

    name: str
    columns: tuple[str, ...]
    moment: str


MARRIAGES = Table("hydj", marriages.COLUMNS, "gxsj")  # 婚姻登记
ROSTER = Table("dibao", allowances.COLUMNS, "tjsj")  # 低保


def prepare(
    admin_url: str,
    csv_path: Path,
    database: str = DATABASE,
    reader: str = READER,
    *,
    password: str,
) -> str:
    """Make or refresh the bureau's database and return the URL its reader connects with (``postgresql://``).

    ``admin_url`` (libpq or SQLAlchemy form) names a role that may create databases and roles. ``csv_path``: the marriages;
    the roster of allowances is loaded too where one lies beside it, unless a later one came after that very one. A table is loaded
    only when the file's content differs from what was loaded last, in one transaction: readers see the old rows or the
    new ones. Raises FatalError when the file is missing or is not one of ``yici synth``.
    """
    if not csv_path.is_file():
        raise FatalError("demo-data-missing", file=csv_path)
    admin = conninfo_to_dict(_libpq(admin_url))
    roster = csv_path.with_name("dibao.csv")
    with psycopg.connect(**admin, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        _create(connection, database, reader, password)
        with psycopg.connect(**{**admin, "dbname": database}) as inside:  # type: ignore[arg-type]
            _load(inside, MARRIAGES, csv_path, reader)
            if roster.is_file():
                _load(inside, ROSTER, roster, reader)
    return _url({**admin, "user": reader, "password": password, "dbname": database})


def load_roster(admin_url: str, csv_path: Path, database: str = DATABASE, reader: str = READER) -> None:
    """Replace the roster of allowances by that of another month, as the bureau does; :func:`prepare` leaves it then.

    Raises FatalError as :func:`prepare`.
    """
    if not csv_path.is_file():
        raise FatalError("demo-data-missing", file=csv_path)
    admin = conninfo_to_dict(_libpq(admin_url))
    with psycopg.connect(**{**admin, "dbname": database}) as inside:  # type: ignore[arg-type]
        _load(inside, ROSTER, csv_path, reader, later=True)


def _create(connection: psycopg.Connection, database: str, reader: str, password: str) -> None:
    role, name = sql.Identifier(reader), sql.Identifier(database)
    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (reader,)).fetchone():
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    settings = (
        sql.SQL("ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
            role, sql.Literal(password)
        ),
        sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(role),
    )
    for statement in settings:
        connection.execute(statement)
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(name))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, role))


def _load(connection: psycopg.Connection, table: Table, csv_path: Path, reader: str, later: bool = False) -> None:
    """The table's comment says what was loaded first, and, of a ``later`` file, what after it."""
    name, role, moment = (sql.Identifier(part) for part in (table.name, reader, table.moment))
    content = f"sha256:{digest(csv_path)}"
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    typed = sql.SQL(", ").join(
        sql.SQL("{} {}").format(
            sql.Identifier(column), sql.SQL("timestamptz NOT NULL" if column == table.moment else "text")
        )
        for column in table.columns
    )
    with connection.transaction():
        # The bureau's own key is not declared: its table may hold a row twice, as such tables do.
        connection.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {})").format(
                name, typed
            )
        )
        index = sql.Identifier(f"{table.name}_{table.moment}")
        connection.execute(sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} ({}, id)").format(index, name, moment))
        connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(name, role))
        known = connection.execute("SELECT obj_description(%s::regclass)", (table.name,)).fetchone()
        first, _, after = str((known and known[0]) or "").partition(" ")
        if content == (after if later else first):
            return
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(name))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER match)").format(name, columns)
        try:
            with csv_path.open("rb") as file, connection.cursor().copy(statement) as copy:
                while block := file.read(1 << 20):
                    copy.write(block)
        except psycopg.DataError:
            raise FatalError("demo-data-unreadable", file=csv_path) from None  # the cause may quote a row
        comment = f"{first} {content}" if later else content
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(comment)))
    connection.autocommit = True
    connection.execute(sql.SQL("ANALYZE {}").format(name))
    connection.autocommit = False


def _libpq(url: str) -> str:
    """``postgresql+psycopg://`` of SQLAlchemy -> ``postgresql://``."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}" if mark else make_conninfo(url)


def _url(parts: dict[str, object]) -> str:
    """A URL of connection parameters; a socket folder goes into the query, where every driver finds it."""
    kept = {name: quote(str(value), safe="") for name, value in parts.items() if value is not None}
    login = f"{kept.pop('user')}:{kept.pop('password')}@"
    database = kept.pop("dbname")
    socket_folder = str(parts.get("host") or "").startswith("/")
    host = "" if socket_folder else kept.pop("host", "127.0.0.1")
    port = "" if socket_folder or "port" not in kept else ":" + kept.pop("port")
    query = "&".join(f"{name}={value}" for name, value in sorted(kept.items()))
    return f"postgresql://{login}{host}{port}/{database}" + (f"?{query}" if query else "")
