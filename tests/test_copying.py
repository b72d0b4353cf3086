"""hub/copying.py: what goes into PostgreSQL by COPY is what comes out, in both formats."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa

from hub import copying

MOMENT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    {
        "i8": pa.int64(), "id": pa.binary(16), "t": pa.string(), "raw": pa.binary(), "doc": pa.string(), "ok": pa.bool_(),
        "i2": pa.int16(), "at": MOMENT, "i4": pa.int32(), "day": pa.date32(), "f8": pa.float64(),
    }
)  # fmt: skip
POSTGRES = ["int8", "uuid", "text", "bytea", "json", "bool", "int2", "timestamptz", "int4", "date"]


@pytest.fixture
def connection(postgres_url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(postgres_url)
    with engine.connect() as connection:
        connection.execute(sa.text("SET TIME ZONE 'Asia/Shanghai'"))
        yield connection
    engine.dispose()


def create(connection: sa.Connection, types: list[str], names: list[str]) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))
    connection.execute(sa.text(f"CREATE TEMP TABLE t (n bigserial, {columns})"))


def rows(count: int, seed: int = 1, nulls: float = 0.3) -> list[dict[str, object]]:
    chance = random.Random(seed)
    made = [
        {
            "i8": chance.randint(-(2**63), 2**63 - 1),
            "id": chance.randbytes(16),
            "t": "".join(chance.choices('ab"\\\n\r\t,上海𠮷\u0085', k=chance.randint(0, 30))),
            "raw": chance.randbytes(chance.randint(0, 30)),
            "doc": f'{{"k": {chance.randint(0, 99)}}}',
            "ok": chance.random() < 0.5,
            "i2": chance.randint(-(2**15), 2**15 - 1),
            "at": dt.datetime(1950, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=chance.randint(0, 4 * 10**15)),
            "i4": chance.randint(-(2**31), 2**31 - 1),
            "day": dt.date(1, 1, 1) + dt.timedelta(chance.randint(0, 3_652_058)),
        }
        for _ in range(count)
    ]
    return [{name: None if chance.random() < nulls else value for name, value in row.items()} for row in made]


def expected(row: dict[str, object]) -> tuple[object, ...]:
    """As psycopg's own adapters give it."""
    found = {**row, "id": row["id"] and uuid.UUID(bytes=row["id"])}  # type: ignore[arg-type]
    return tuple(found.values())


@pytest.mark.parametrize("nulls", [0.0, 0.3, 1.0])
def test_every_type_goes_in(connection: sa.Connection, nulls: float) -> None:
    schema = pa.schema(list(SCHEMA)[:-1])
    create(connection, POSTGRES, schema.names)
    made = rows(1000, nulls=nulls)
    table = pa.Table.from_pylist(made, schema)
    with copying.into(connection, "t", schema.names, POSTGRES) as copy:
        copy.write(table.slice(0, 300))
        copy.write(table.slice(300, 0))
        copy.write(pa.concat_tables([table.slice(300, 1), table.slice(301)]))
    assert copy.rows == 1000
    listing = ", ".join("doc::text" if name == "doc" else name for name in schema.names)
    found = connection.execute(sa.text(f"SELECT {listing} FROM t ORDER BY n")).all()
    assert [tuple(row) for row in found] == [expected(row) for row in made]


@pytest.mark.parametrize("nulls", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("held", [copying.BATCH, 1, 5000])
def test_what_goes_in_comes_out(connection: sa.Connection, nulls: float, held: int) -> None:
    schema = pa.schema(list(SCHEMA)[:-1])
    create(connection, POSTGRES, schema.names)
    table = pa.Table.from_pylist(rows(300, nulls=nulls), schema)
    with copying.into(connection, "t", schema.names, POSTGRES) as copy:
        copy.write(table)
    query = f"SELECT {', '.join(schema.names)}, i4::float8 / 3 FROM t WHERE n > {{least}} ORDER BY n"
    parts = list(copying.batches_of(connection, query, SCHEMA, {"least": 0}, held))
    assert len(parts) == 1 if held == copying.BATCH else len(parts) > 2 and all(part.num_rows for part in parts)
    found = pa.concat_tables(parts)
    assert found.drop_columns(["f8"]) == table
    assert found["f8"].to_pylist() == [None if i is None else i / 3 for i in table["i4"].to_pylist()]
    narrow = pa.schema({"id": pa.binary(16), "i8": pa.int64(), "ok": pa.bool_(), "day": pa.date32(), "at": MOMENT})
    found = copying.out_of(connection, "SELECT id, i8, ok, day, at FROM t ORDER BY n", narrow, {})
    assert found == table.select(narrow.names)
    assert connection.scalar(sa.text("SELECT 1")) == 1


@pytest.mark.parametrize("kind", ["text", "bytea", "uuid", "float8"])
def test_lists(connection: sa.Connection, kind: str) -> None:
    values = {
        "text": [["a", None, "上海", ""], [], None, ["x"], [None]],
        "bytea": [[b"a", None, b"", b"\x00"], [], None, [b"x"], [None]],
        "uuid": [[bytes(range(16)), None], [], None, [b"x" * 16], [None]],
        "float8": [[-0.5, None, 1e300], [], None, [3.0], [None]],
    }[kind]
    create(connection, [f"{kind}[]", "int8"], ["list", "i"])
    form = {"text": pa.string(), "bytea": pa.binary(), "uuid": pa.binary(16), "float8": pa.float64()}[kind]
    left_out = {"text": "left out", "float8": 9.0}.get(kind, b"-" * 16)
    lists = pa.array([[left_out], *values], pa.list_(form))
    table = pa.table({"list": lists, "i": range(len(lists))}).slice(1)
    with copying.into(connection, "t", ["list", "i"], [f"{kind}[]", "int8"]) as copy:
        copy.write(table)
    found = connection.execute(sa.text("SELECT list FROM t ORDER BY n")).scalars().all()
    if kind == "uuid":
        found = [row and [value and value.bytes for value in row] for row in found]
    assert found == values
    assert connection.scalar(sa.text("SELECT count(*) FROM t WHERE list = '{}'")) == 1


def test_jsonb_and_fractions(connection: sa.Connection) -> None:
    create(connection, ["jsonb", "float8"], ["said", "f8"])
    table = pa.table({"said": ['[{"a": "上"}]', None, "3"], "f8": [0.1, None, float("inf")]})
    with copying.into(connection, "t", ["said", "f8"], ["jsonb", "float8"]) as copy:
        copy.write(table)
    found = connection.execute(sa.text("SELECT said, f8 FROM t ORDER BY n")).all()
    assert [tuple(row) for row in found] == [([{"a": "上"}], 0.1), (None, None), (3, float("inf"))]


def test_narrow_and_missing_types_are_made_to_fit(connection: sa.Connection) -> None:
    create(connection, ["int2", "text", "uuid", "bytea", "date"], ["a", "b", "c", "d", "e"])
    table = pa.table(
        {
            "a": pa.array([1, 2], pa.int64()),
            "b": pa.array(["x", "y"]).dictionary_encode(),
            "c": pa.array([b"c" * 16, None], pa.binary()),
            "d": pa.array([b"d" * 16, b"e" * 16], pa.binary(16)),
            "e": pa.nulls(2),
        }
    )
    with copying.into(connection, "t", table.column_names, ["int2", "text", "uuid", "bytea", "date"]) as copy:
        copy.write(table)
    assert [tuple(row) for row in connection.execute(sa.text("SELECT a, b, c, d, e FROM t ORDER BY n"))] == [
        (1, "x", uuid.UUID(bytes=b"c" * 16), b"d" * 16, None),
        (2, "y", None, b"e" * 16, None),
    ]


@pytest.mark.parametrize("types", [None, ["text", "bool"]])
def test_both_formats_say_the_same(connection: sa.Connection, types: list[str] | None) -> None:
    create(connection, ["text", "bool"], ["a", "b"])
    table = pa.table({"a": ["", None, 'q"', "x,\n"], "b": [True, False, None, True]})
    with copying.into(connection, "t", ["a", "b"], types) as copy:
        copy.write(table)
    assert copying.out_of(connection, "SELECT a, b FROM t ORDER BY n", table.schema, {}) == table


def test_no_rows(connection: sa.Connection) -> None:
    create(connection, ["uuid", "text"], ["id", "a"])
    with copying.into(connection, "t", ["id"], ["uuid"]):
        pass
    for schema in (pa.schema({"id": pa.binary(16)}), pa.schema({"id": pa.string(), "a": pa.string()})):
        query = f"SELECT {', '.join(schema.names)} FROM t"
        assert copying.out_of(connection, query, schema, {}) == schema.empty_table()
        assert list(copying.batches_of(connection, query, schema, {})) == [schema.empty_table()]


def test_what_does_not_fit_is_refused(connection: sa.Connection) -> None:
    create(connection, ["int2", "timestamptz", "text"], ["a", "b", "c"])
    with pytest.raises(ValueError, match="no binary form: numeric"), copying.into(connection, "t", ["a"], ["numeric"]):
        pass
    schema = pa.schema({"id": pa.binary(16), "n": pa.int64()})
    with pytest.raises(ValueError, match="column n is not int64"):
        copying.out_of(connection, "SELECT gen_random_uuid(), 1::int4", schema, {})
    with pytest.raises(ValueError, match="no binary form: n"):
        copying.out_of(connection, "SELECT 1", pa.schema({"id": pa.binary(16), "n": pa.list_(pa.int8())}), {})
    assert connection.scalar(sa.text("SELECT 1")) == 1


@pytest.mark.parametrize("schema", [pa.schema({"id": pa.binary(16)}), pa.schema({"id": pa.string()})])
def test_an_error_in_the_middle_is_raised_and_the_connection_goes_on(
    connection: sa.Connection, schema: pa.Schema
) -> None:
    query = "SELECT CASE WHEN 1 / (g - 50000) < 2 THEN gen_random_uuid() END FROM generate_series(1, 100000) AS g"
    with pytest.raises(psycopg.errors.DivisionByZero):
        copying.out_of(connection, query, schema, {})
    connection.rollback()
    assert connection.scalar(sa.text("SELECT 1")) == 1
    parts = copying.batches_of(connection, query.replace("50000", "200000"), schema, {}, 1000)
    assert next(parts).num_rows
    parts.close()  # type: ignore[attr-defined]
    connection.rollback()
    assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_failed_copy_leaves_nothing(connection: sa.Connection) -> None:
    create(connection, ["text"], ["a"])
    connection.commit()
    connection.begin()
    with pytest.raises(RuntimeError), copying.into(connection, "t", ["a"], ["text"]) as copy:
        copy.write(pa.table({"a": ["x"] * 100_000}))
        raise RuntimeError
    connection.rollback()
    assert connection.scalar(sa.text("SELECT count(*) FROM t")) == 0


@pytest.mark.parametrize("sizes", [[], [0], [0, 3, 0], [copying.ROWS + 5, 0, 2]])
def test_loaded_in_parts_some_of_them_empty(connection: sa.Connection, sizes: list[int]) -> None:
    create(connection, ["bigint", "text"], ["a", "b"])
    numbers = iter(range(sum(sizes)))
    parts = [pa.table({"a": pa.array([next(numbers) for _ in range(size)], pa.int64())}) for size in sizes]
    done = copying.load(connection, "t", {"a": "int8", "b": "text"}, iter(parts), {"b": "same"})
    assert done == sum(sizes)
    found = connection.execute(sa.text("SELECT a, b FROM t ORDER BY n")).all()
    assert [tuple(row) for row in found] == [(number, "same") for number in range(sum(sizes))]
