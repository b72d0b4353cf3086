"""Rows of a shared table as the store holds them now: only agreed columns leave the database, only agreed regions.

One statement for a range of holding keys, or for those of them that changed; the answer comes by COPY, as Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from hub import copying
from hub.exchange.shares import Shared
from mappings import arrow, cleaning
from mappings.model import ENVELOPE, ValueType

KEY = pa.binary(16)
CHANGED = "share_changed"  # temporary table of holdings
# How a value comes over: a type that the binary COPY has, and what makes it of the JSON text.
_WIRE: dict[ValueType, tuple[pa.DataType, str]] = {
    "string": (pa.string(), "{text}"),
    "date": (pa.date32(), "({text})::date"),
    "integer": (pa.int64(), "({text})::int8"),
    "decimal": (pa.string(), "{text}"),
    "boolean": (pa.bool_(), "({text})::bool"),
}


@dataclass(frozen=True)
class Rows:
    """Rows by holding key: ``keys`` (n,) 16 bytes each, rising; ``table`` (n,) the agreed columns."""

    keys: pa.Array
    table: pa.Table

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Range:
    """Keys whose first ``bits`` are those of a number from ``first`` to ``last``, both included."""

    bits: int
    first: int
    last: int

    @property
    def low(self) -> bytes:
        return (self.first << 128 - self.bits).to_bytes(16, "big")

    @property
    def high(self) -> bytes:
        return ((self.last + 1 << 128 - self.bits) - 1).to_bytes(16, "big")


def schema(shared: Shared) -> pa.Schema:
    """Of a table of ``shared``."""
    return pa.schema([(name, arrow.TYPES[kind]) for name, kind in shared.columns.items()])


def read(connection: sa.Connection, shared: Shared, within: Range, *, changed: bool) -> Rows:
    """The rows of ``shared`` with keys ``within``; ``changed``: only those in the temporary table :data:`CHANGED`."""
    wire = pa.concat_tables(_parts(connection, shared, within, changed=changed)).combine_chunks()
    columns = [_column(wire, name, kind) for name, kind in shared.columns.items()]
    return Rows(cleaning.whole(wire["_key"]), pa.table(columns, schema=schema(shared)))


def none(shared: Shared) -> Rows:
    return Rows(pa.array([], KEY), schema(shared).empty_table())


def _parts(connection: sa.Connection, shared: Shared, within: Range, *, changed: bool) -> Iterator[pa.Table]:
    fields: list[tuple[str, pa.DataType]] = [("_key", KEY)]
    chosen = ["h.key"]
    for name, kind in shared.columns.items():
        for part, wire, expression in _wired(name, kind):
            fields.append((part, wire))
            chosen.append(expression)
    roles = [
        f"""CROSS JOIN LATERAL (SELECT jsonb_path_query_first(d.whole, '$.holders[*] ? (@.role == "{role}")') AS said OFFSET 0) AS role_{role}"""
        for role in shared.material.holders
        if any(name.startswith(f"holder.{role}.") for name in shared.columns)
    ]
    query = _ROWS.format(
        columns=", ".join(chosen), roles=" ".join(roles), changed=f"JOIN {CHANGED} AS c ON c.holding = h.key" if changed else ""
    )  # fmt: skip
    bind = {"material": shared.name, "regions": list(shared.regions), "low": within.low, "high": within.high}
    return copying.batches_of(connection, query, pa.schema(fields), bind)


def _wired(name: str, kind: ValueType) -> list[tuple[str, pa.DataType, str]]:
    """Columns of the answer for one of the table: name, type, SQL."""
    place = _place(name)
    if kind == "money":
        return [
            (f"{name} there", pa.bool_(), f"coalesce(jsonb_typeof({place}) = 'object', false)"),
            (f"{name} amount", pa.string(), f"{place} ->> 'amount'"),
            (f"{name} currency", pa.string(), f"{place} ->> 'currency'"),
        ]
    wire, form = _WIRE[kind]
    return [(name, wire, form.format(text=f"{place} #>> '{{{{}}}}'"))]


def _place(name: str) -> str:
    """Where a column stands in the document, as jsonb. Names are those of the model: letters, digits, underscores."""
    if name in ENVELOPE:
        return f"(d.whole -> '{name}')"
    group, one, *part = name.split(".")
    return f"(role_{one}.said -> '{part[0]}')" if group == "holder" else f"(d.whole -> 'attributes' -> '{one}')"


def _column(wire: pa.Table, name: str, kind: ValueType) -> pa.ChunkedArray:
    wanted = arrow.TYPES[kind]
    if kind != "money":
        return wire[name].cast(wanted)
    amount, currency = wanted.field("amount"), wanted.field("currency")
    parts = [cleaning.whole(wire[f"{name} amount"].cast(amount.type)), cleaning.whole(wire[f"{name} currency"])]
    missing = pc.invert(cleaning.whole(wire[f"{name} there"]))
    return pa.chunked_array([pa.StructArray.from_arrays(parts, fields=[amount, currency], mask=missing)])


# A holding that names no region is of its source's, as in the index feed.
_ROWS = """
SELECT {columns}
FROM holding AS h
  {changed}
  JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
  CROSS JOIN LATERAL (SELECT m.document::jsonb AS whole OFFSET 0) AS d
  {roles}
WHERE h.material = {{material}} AND h.key >= {{low}} AND h.key <= {{high}}
  AND EXISTS (SELECT FROM unnest({{regions}}::text[]) AS r
    WHERE starts_with(coalesce(h.region, (SELECT s.region FROM source AS s WHERE s.name = h.source)), r))
ORDER BY h.key
"""
