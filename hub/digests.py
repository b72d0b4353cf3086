"""Digests of rows, set-based: DuckDB hashes whole columns. MD5 tells rows apart, it protects nothing."""

from __future__ import annotations

import functools
import os
import threading

import duckdb
import pyarrow as pa
import pyarrow.compute as pc


def of_columns(columns: list[pa.ChunkedArray], names: list[str] | None = None) -> pa.ChunkedArray:
    """MD5 (32 hex digits) of each row over string columns; lengths go in, so that null and empty differ and no value can
    pass for two."""
    table = pa.table({f"c{place}": column for place, column in enumerate(columns)})
    parts = ", ".join(f"coalesce(length(c{place}) || ':' || c{place}, '-')" for place in range(len(columns)))
    header = "\x1f".join(names or [])
    return _query(f"SELECT md5(concat_ws(chr(31), $header, {parts})) AS d FROM t", t=table, header=header)["d"]


def of_bytes(values: pa.ChunkedArray, prefix: str) -> pa.ChunkedArray:
    """MD5 (32 hex digits) of ``prefix`` and each of ``values``."""
    return _query("SELECT md5($prefix || hex(raw)) AS d FROM t", t=pa.table({"raw": values}), prefix=prefix)["d"]


def folded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Spelling of a key that does not make another row: width, case and surrounding space."""
    return pc.utf8_upper(pc.utf8_trim_whitespace(pc.utf8_normalize(column, form="NFKC")))


def _query(sql: str, t: pa.Table, **parameters: object) -> pa.Table:
    engine = _engine(os.getpid(), threading.get_ident())
    engine.register("t", t)
    try:
        return engine.sql(sql, params=parameters or None).to_arrow_table()
    finally:
        engine.unregister("t")


@functools.cache
def _engine(process: int, thread: int) -> duckdb.DuckDBPyConnection:
    """Kept from question to question, since opening costs more than hashing a page; no fork or other thread uses it."""
    return duckdb.connect(config={"threads": 1})
