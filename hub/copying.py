"""Arrow tables into PostgreSQL and out of it by COPY: one stream, written and read in C on both ends."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import sqlalchemy as sa
from psycopg import sql

_CSV = pa_csv.WriteOptions(include_header=False, quoting_style="needed")


class Writer:
    """Takes Arrow tables for one open COPY; null becomes SQL null, an empty string stays one."""

    def __init__(self, copy: psycopg.Copy) -> None:
        self._copy = copy
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        if table.num_rows:
            buffer = io.BytesIO()
            # Combined: pyarrow 26 writes stray bytes when the first chunk of a table is empty.
            pa_csv.write_csv(table.combine_chunks(), buffer, _CSV)
            self._copy.write(buffer.getbuffer())
            self.rows += table.num_rows


@contextmanager
def into(connection: sa.Connection, table: str, columns: Sequence[str]) -> Iterator[Writer]:
    """COPY into ``table (columns)`` within the connection's transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        yield Writer(copy)


def out_of(connection: sa.Connection, query: str, schema: pa.Schema, parameters: Mapping[str, object]) -> pa.Table:
    """The rows of ``query`` as a table of ``schema``. Named placeholders ``{name}`` in the query are literals."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    literals = {name: sql.Literal(value) for name, value in parameters.items()}
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(sql.SQL(query).format(**literals))
    buffer = io.BytesIO()
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for part in copy:
            buffer.write(part)
    if not buffer.tell():
        return schema.empty_table()
    buffer.seek(0)
    convert = pa_csv.ConvertOptions(
        column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""],
        true_values=["t"], false_values=["f"],
    )  # fmt: skip
    return pa_csv.read_csv(buffer, pa_csv.ReadOptions(column_names=schema.names), convert_options=convert)
