"""Arrow tables into PostgreSQL and out of it by COPY: one stream, written and read in C on both ends."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import sqlalchemy as sa
from psycopg import pq, sql
from psycopg.errors import error_from_result

from hub import binary_copy

ROWS = 16_384  # encoded at once
AHEAD = 4  # parts of so many rows that wait to be sent
BATCH = 16 << 20  # bytes of an answer decoded at once

T = TypeVar("T")
_CSV = pa_csv.WriteOptions(include_header=False, quoting_style="needed")


class Writer:
    """Takes Arrow tables for one open COPY; null becomes SQL null, an empty string stays one."""

    def __init__(self, copy: psycopg.Copy, types: Sequence[str | bytes] | None = None) -> None:
        self._copy, self._types = copy, types
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        for start in range(0, table.num_rows, ROWS if self._types else table.num_rows):
            part = table.slice(start, ROWS) if self._types else table
            self._copy.write(memoryview(binary_copy.encoded(part, self._types) if self._types else _csv(part)))
        self.rows += table.num_rows


def _csv(table: pa.Table) -> memoryview:
    buffer = io.BytesIO()
    # Combined: pyarrow 26 writes stray bytes when the first chunk of a table is empty.
    pa_csv.write_csv(table.combine_chunks(), buffer, _CSV)
    return buffer.getbuffer()


@contextmanager
def into(
    connection: sa.Connection, table: str, columns: Sequence[str], types: Sequence[str] | None = None
) -> Iterator[Writer]:
    """COPY into ``table (columns)`` within the connection's transaction.

    ``types``: the columns' types (of ``binary_copy.TYPES``) make it binary, which costs the server no parsing.
    """
    if unknown := set(types or ()) - binary_copy.TYPES:
        raise ValueError(f"no binary form: {', '.join(sorted(unknown))}")
    if types and len(types) != len(columns):
        raise ValueError(f"{len(columns)} columns, {len(types)} types")
    with (
        _driver(connection).cursor() as cursor,
        cursor.copy(_into(table, columns, "binary" if types else "csv")) as copy,
    ):
        if types:
            copy.write(binary_copy.HEADER)
        yield Writer(copy, types)
        if types:
            copy.write(binary_copy.TRAILER)


def load(
    connection: sa.Connection,
    table: str,
    types: Mapping[str, str],
    parts: Iterator[pa.Table],
    constants: Mapping[str, object],
) -> int:
    """COPY ``parts`` into ``table`` while the next ones are made and encoded in a thread of their own; returns the rows.

    ``types``: of the columns, in their order; ``constants``: those that are the same in every row, which the parts do not
    have. The parts may not ask ``connection`` for anything.
    """
    varying = [name for name in types if name not in constants]
    fields = [
        binary_copy.constant(constants[name], kind) if name in constants else kind for name, kind in types.items()
    ]

    def slices(part: pa.Table) -> Iterator[tuple[int, pa.Buffer]]:
        for start in range(0, len(part), ROWS):
            rows = part.slice(start, ROWS).select(varying)
            yield len(rows), binary_copy.encoded(rows, fields)

    def encoded() -> Iterator[tuple[int, pa.Buffer]]:
        for part in parts:
            yield from slices(part)
            del part  # the next one may need as much memory again

    copied = 0
    with _driver(connection).cursor() as cursor, cursor.copy(_into(table, types, "binary")) as copy:
        copy.write(binary_copy.HEADER)
        for rows, data in _ahead(encoded()):
            copy.write(memoryview(data))
            copied += rows
        copy.write(binary_copy.TRAILER)
    return copied


def _into(table: str, columns: Iterable[str], form: str) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(form)
    )


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, a few of them made before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item


def out_of(connection: sa.Connection, query: str, schema: pa.Schema, parameters: Mapping[str, object]) -> pa.Table:
    """The rows of ``query`` as a table of ``schema``. Named placeholders ``{name}`` in the query are literals.

    With a ``binary(16)`` (a uuid or bytea column) in the schema the answer is read in binary, and every column must be
    what ``binary_copy.decoded`` reads; jsonb must be cast to text. Without, it is read as CSV.
    """
    return pa.concat_tables(batches_of(connection, query, schema, parameters))


def batches_of(
    connection: sa.Connection,
    query: str,
    schema: pa.Schema,
    parameters: Mapping[str, object],
    batch: int = BATCH,
) -> Iterator[pa.Table]:
    """:func:`out_of` in tables of about ``batch`` bytes of the answer, in its order; at least one comes, maybe empty.

    Until the last one is taken the connection can do nothing else.
    """
    binary = binary_copy.UUID in schema.types
    if unknown := [field.name for field in schema if binary and not binary_copy.has_form(field.type)]:
        raise ValueError(f"no binary form: {', '.join(unknown)}")
    literals = {name: sql.Literal(value) for name, value in parameters.items()}
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT {})").format(
        sql.SQL(query).format(**literals), sql.SQL("binary" if binary else "csv")
    )
    none = True
    with _driver(connection).cursor() as cursor, cursor.copy(statement) as copy:
        for data, sizes in _messages(copy, batch):
            part = _decoded(data, sizes, schema) if binary else _parsed(data, schema)
            if part.num_rows or none:
                yield part
            none = False


def _messages(copy: psycopg.Copy, batch: int) -> Iterator[tuple[memoryview, list[int]]]:
    """The answer to a COPY in parts of about ``batch`` bytes, and the size of each message: one row, says the protocol.

    What has arrived is taken straight from libpq; going through psycopg for every row costs three times as much. The
    rows are put together at once: a list of so many would keep Python's garbage collector busy.
    """
    connection = copy.connection.pgconn
    take, more = connection.get_copy_data, True
    while more:
        held, sizes, left = io.BytesIO(), list[int](), batch
        while left > 0:
            size, row = take(1)
            if size < 0:
                _end(connection)
            elif size == 0:
                row = memoryview(copy.read())  # waits for more
                size = len(row)
            if size <= 0:
                more = False
                break
            held.write(row)
            sizes.append(size)
            left -= size
        yield held.getbuffer(), sizes


def _end(connection: pq.abc.PGconn) -> None:
    """Take what follows the last row: the server's word on how it went."""
    failed = None
    while (result := connection.get_result()) is not None:
        failed = failed or (result if result.status != pq.ExecStatus.COMMAND_OK else None)
    if failed:
        raise error_from_result(failed)


def _decoded(data: memoryview, sizes: list[int], schema: pa.Schema) -> pa.Table:
    """The header comes with what follows it: the first tuple, or the trailer."""
    if data[: len(binary_copy.HEADER)] == binary_copy.HEADER:
        data, sizes[0] = data[len(binary_copy.HEADER) :], sizes[0] - len(binary_copy.HEADER)
    if sizes and sizes[-1] == len(binary_copy.TRAILER):
        data = data[: -sizes.pop()]
    return binary_copy.decoded(data, sizes, schema)


def _parsed(data: memoryview, schema: pa.Schema) -> pa.Table:
    if not data:
        return schema.empty_table()
    convert = pa_csv.ConvertOptions(
        column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""],
        true_values=["t"], false_values=["f"],
    )  # fmt: skip
    return pa_csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)), pa_csv.ReadOptions(column_names=schema.names),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True), convert_options=convert,
    )  # fmt: skip


def _driver(connection: sa.Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
