"""connectors/database.py against a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors import database
from connectors.block import ROW
from connectors.connections import Connection, from_uri
from connectors.errors import FatalError, RetriableError
from connectors.landing import Landing
from connectors.reading import blocks
from connectors.source import DatabaseOptions, Source, load

TABLE = """CREATE TABLE hydj (djzh text, nf_xm text, nf_sfzh text, nvf_xm text, nvf_sfzh text, djrq date, djjg text,
djjg_dm text, xzqh text, zt text, gxsj timestamptz, secret text)"""


@pytest.fixture
def department(postgres_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text(TABLE))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(postgres_url: str) -> Connection:
    return from_uri("sh-mca", postgres_url)


@pytest.fixture
def source() -> Source:
    return load("sh-mca-marriages")


def changed(source: Source, **options: Any) -> Source:
    return source.model_copy(update={"options": source.options.model_copy(update=options)})


def insert(engine: sa.Engine, *rows: tuple[str, str | None, str | None]) -> None:
    with engine.begin() as connection:
        for key, name, moment in rows:
            connection.execute(
                sa.text("INSERT INTO hydj (djzh, nf_xm, gxsj, secret) VALUES (:k, :n, :m, 'no')"),
                {"k": key, "n": name, "m": moment},
            )


def rows(source: Source, fetched: Any, landing: Landing) -> list[dict[str, Any]]:
    tables = [b.table for file in fetched.files for b in blocks(source, file, landing)]
    return pa.concat_tables(tables).to_pylist()


def test_null_empty_and_awkward_values(
    source: Source, department: sa.Engine, connection: Connection, tmp_path: Path
) -> None:
    insert(
        department,
        ("1", None, "2026-01-01 08:00:00+08"),
        ("2", "", "2026-01-02 00:00:00+00"),
        ("3", 'a,"b"\n上\r\n\\N', "2026-01-03 00:00:00+00"),
    )
    landing = Landing(tmp_path)
    found = rows(source, database.fetch(source, connection, None, landing), landing)
    assert [row["nf_xm"] for row in found] == [None, "", 'a,"b"\n上\r\n\\N']
    assert [row["gxsj"] for row in found][:2] == ["2026-01-01 00:00:00+00", "2026-01-02 00:00:00+00"]
    assert [row[ROW] for row in found] == [1, 2, 3]
    assert set(found[0]) == {*source.options.columns, ROW}, "only the agreed columns leave the department"


def test_increments_with_overlap(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    now = dt.datetime.now(dt.UTC)
    insert(
        department,
        ("old", "x", str(now - dt.timedelta(days=1))),
        ("late", "x", str(now - dt.timedelta(minutes=2))),
        ("none", "x", None),
        ("future", "x", "2999-01-01"),
    )
    first = database.fetch(source, connection, None, landing)
    assert [row["djzh"] for row in rows(source, first, landing)] == ["old", "late", "future", "none"]
    assert first.cursor is not None
    moved = dt.datetime.fromisoformat(first.cursor["watermark"])
    assert abs(moved - now) < dt.timedelta(minutes=1)
    insert(department, ("new", "x", str(dt.datetime.now(dt.UTC))))
    second = database.fetch(source, connection, first.cursor, landing)
    assert [row["djzh"] for row in rows(source, second, landing)] == ["late", "new", "future", "none"]
    assert "x" not in str(second.request)


def test_no_rows_is_a_success(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    assert rows(source, database.fetch(source, connection, None, landing), landing) == []


def test_everything_runs_read_only(
    source: Source, department: sa.Engine, connection: Connection, tmp_path: Path
) -> None:
    """A view that writes: the transaction forbids it."""
    with department.begin() as session:
        session.execute(sa.text("CREATE SEQUENCE counter"))
        session.execute(sa.text("ALTER TABLE hydj RENAME TO real"))
        session.execute(sa.text("INSERT INTO real (djzh) VALUES ('1')"))
        session.execute(
            sa.text("CREATE VIEW hydj AS SELECT *, CASE WHEN nextval('counter') > 0 THEN 1 END AS n FROM real")
        )
    greedy = changed(source, columns=("djzh", "gxsj", "n"))
    with pytest.raises(FatalError) as caught:
        database.fetch(greedy, connection, None, Landing(tmp_path))
    assert (caught.value.code, caught.value.values["state"]) == ("database-failed", "25006")


def test_names_are_quoted(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    with department.begin() as session:
        session.execute(sa.text('CREATE SCHEMA "民政"'))
        session.execute(sa.text('CREATE TABLE "民政"."Odd ""name""; --" ("select" text, "gxsj" timestamptz)'))
        session.execute(sa.text("""INSERT INTO "民政"."Odd ""name""; --" VALUES ('x', now())"""))
    odd = changed(source, db_schema="民政", table='Odd "name"; --', columns=("select", "gxsj"))
    odd = odd.model_copy(update={"row_key": ("select",)})
    landing = Landing(tmp_path)
    assert [row["select"] for row in rows(odd, database.fetch(odd, connection, None, landing), landing)] == ["x"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"table": "absent"}, "database-table"), ({"columns": ("djzh", "renamed")}, "database-column")],
)
def test_missing_parts(
    source: Source,
    department: sa.Engine,
    connection: Connection,
    tmp_path: Path,
    options: dict[str, Any],
    expected: str,
) -> None:
    with pytest.raises(FatalError) as caught:
        database.fetch(changed(source, **options), connection, None, Landing(tmp_path))
    assert caught.value.code == expected
    assert not list(tmp_path.rglob("raw/*/*"))


def test_slow_query_is_stopped(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    with department.begin() as session:
        session.execute(sa.text("ALTER TABLE hydj RENAME TO real"))
        session.execute(sa.text("INSERT INTO real (djzh) VALUES ('1')"))
        session.execute(sa.text("CREATE VIEW hydj AS SELECT * FROM real WHERE pg_sleep(20) IS NOT NULL"))
    with pytest.raises(RetriableError) as caught:
        database.fetch(changed(source, statement_seconds=0.3), connection, None, Landing(tmp_path))
    assert caught.value.code == "database-slow"


def test_unreachable_and_refused(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(RetriableError) as caught:
        database.fetch(source, Connection("x", "postgresql://127.0.0.1:1/db", "me", "hush"), None, Landing(tmp_path))
    assert caught.value.code == "database-unreachable"
    assert "hush" not in str(caught.value)
    wrong = Connection("x", connection.url, "nobody-here", "hush")
    with pytest.raises(FatalError) as refused:
        database.fetch(source, wrong, None, Landing(tmp_path))
    assert refused.value.code == "database-login"


def test_no_permission(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    with department.begin() as session:
        session.execute(sa.text("DROP ROLE IF EXISTS yici_stranger"))
        session.execute(sa.text("CREATE ROLE yici_stranger LOGIN PASSWORD 'hush'"))
    try:
        with pytest.raises(FatalError) as caught:
            database.fetch(source, Connection("x", connection.url, "yici_stranger", "hush"), None, Landing(tmp_path))
        assert caught.value.code == "database-permission"
    finally:
        with department.begin() as session:
            session.execute(sa.text("DROP ROLE yici_stranger"))


def test_streams(source: Source, department: sa.Engine, connection: Connection, tmp_path: Path) -> None:
    """Many rows go through in chunks, none of them large."""
    with department.begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO hydj (djzh, nf_xm, gxsj) SELECT i, repeat('x', 100), now() FROM generate_series(1, 100000) i"
            )
        )
    seen: list[int] = []
    landing = Landing(tmp_path)
    fetched = database.fetch(source, connection, None, landing, lambda done, _: seen.append(done))
    assert max(after - before for before, after in pairwise(seen)) < 1_000_000
    assert seen[-1] == fetched.files[0].size > 10_000_000
    assert len(rows(source, fetched, landing)) == 100_000


def test_check(source: Source, department: sa.Engine, connection: Connection) -> None:
    steps = database.check(source, connection)
    assert [(step.step, step.ok) for step in steps] == [("connect", True), ("table", True), ("columns", True)]
    with department.begin() as session:
        session.execute(sa.text("ALTER TABLE hydj RENAME COLUMN nf_xm TO name"))
    last = database.check(source, connection)[-1]
    assert not last.ok
    assert "nf_xm" in last.detail
    absent = changed(source, table="absent")
    assert isinstance(absent.options, DatabaseOptions)
    assert [(step.step, step.ok) for step in database.check(absent, connection)] == [
        ("connect", True),
        ("table", False),
    ]
    (only,) = database.check(source, Connection("x", "postgresql://127.0.0.1:1/db"))
    assert (only.step, only.ok) == ("connect", False)
    assert only.advice
