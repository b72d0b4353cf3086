"""What one question selects of the files of a version, written as files of its own: run as a process by
:mod:`hub.exchange.share_selection`, which keeps Arrow and its memory out of the API.

Reads one job as JSON from standard input, one file after the other in their order, and writes what became of it as JSON.
Rows that do not match, columns that were not asked for and rows beyond the limit are in no file.
"""

from __future__ import annotations

import datetime as dt
import functools
import operator
import sys
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.spooled import seekable
from connectors.zone import Zone
from hub.exchange.share_folder import Folder, Written
from hub.exchange.share_predicates import Node, named

FILE_ROWS = 1 << 18
_SIGNS: dict[str, Any] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def cut(job: dict[str, Any]) -> list[Written]:
    """``job``: see :func:`hub.exchange.share_selection.selected`, which makes it."""
    zone, columns, predicate, left = Zone(job["landing"]), job["columns"], job["predicate"], job["limit"]
    into = Folder(zone, job["place"], job["into"][0])
    wanted = list(dict.fromkeys([*columns, *sorted(named(predicate))])) if predicate else columns
    written: list[Written] = []
    waiting: list[pa.Table] = []

    def flush() -> None:
        if rows := sum(part.num_rows for part in waiting):
            written.append(into.write(pa.concat_tables(waiting), job["into"][1], f"{len(written):05d}-"))
            assert written[-1].rows == rows
        waiting.clear()

    for path in job["files"]:
        if left == 0:
            break
        part = _read(zone, f"{job['place']}/{path}", wanted)
        if predicate is not None:
            part = part.filter(expression(predicate, part.schema))
        part = part.select(columns).slice(0, left)
        left = None if left is None else left - part.num_rows
        waiting.append(part)
        if sum(one.num_rows for one in waiting) >= FILE_ROWS:
            flush()
    flush()
    return written


def expression(node: Node, schema: pa.Schema) -> pc.Expression:
    """The node as Arrow computes it: nulls as in SQL, rows for which it is null are left out."""
    op = node[0]
    if op in ("and", "or"):
        parts = [expression(child, schema) for child in node[1:]]
        return functools.reduce(operator.and_ if op == "and" else operator.or_, parts)
    if op == "not":
        return ~expression(node[1], schema)
    field = pc.field(node[1])
    if op == "null":
        return field.is_null()
    return _SIGNS[op](field, _literal(schema.field(node[1]).type, node[2]))


def _literal(kind: pa.DataType, text: str) -> pa.Scalar:
    if pa.types.is_date32(kind):
        return pa.scalar(dt.date.fromisoformat(text), kind)
    if pa.types.is_boolean(kind):
        return pa.scalar(text == "true", kind)
    return pa.scalar(
        text if pa.types.is_string(kind) else Decimal(text) if pa.types.is_decimal(kind) else int(text), kind
    )


def _read(zone: Zone, path: str, columns: list[str]) -> pa.Table:
    with seekable(lambda: zone.open(path), path.rpartition("/")[2]) as stream:
        return pq.ParquetFile(stream).read(columns=columns)


if __name__ == "__main__":
    found = cut(orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(orjson.dumps([vars(one) for one in found]))
