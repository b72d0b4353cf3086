"""Identifiers that people decided rows to be about, put where the row should have said them, before it is mapped.

A row is named by its digest, so the decision holds for exactly this version of it; the digest, the row's key and its raw
bytes stay what was delivered. Whatever else the mapping reads from the same column follows by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from connectors.source import Source
from hub import copying
from mappings import codes
from mappings.mapping import Line, Mapping

SCHEMA = pa.schema({"digest": pa.binary(16), "role": pa.string(), "scheme": pa.string(), "value": pa.string()})


@dataclass(frozen=True)
class Attachment:
    """``role`` of a row is held by ``scheme``:``value``, as a person says."""

    role: str
    scheme: str
    value: str

    def said(self) -> dict[str, str]:
        """What is landed with the decision."""
        return {"role": self.role, "scheme": self.scheme, "value": self.value}


def of_source(connection: sa.Connection, source: str) -> pa.Table:
    """All attachments of a source: SCHEMA."""
    query = "SELECT digest, role, scheme, value FROM match_attachment WHERE source = {source}"
    return copying.out_of(connection, query, SCHEMA, {"source": source})


def completed(
    source: Source, mapping: Mapping, raw: pa.Table, digests: pa.ChunkedArray, attached: pa.Table
) -> pa.Table:
    """``raw`` (string columns, n rows) with the identifiers attached to rows of these ``digests`` (n,) in their place.

    Where the kind of number stands in a column of its own, that column says it as the source would. A kind that the source
    has no word for, or a role that its mapping does not read, is left alone: the row stays unmappable.
    """
    for role in pc.unique(attached["role"]).to_pylist():  # a handful of roles
        line = next((line for line in mapping.lines if line.field == f"holder.{role}" and line.columns), None)
        if line is None:
            continue
        here = attached.filter(pc.equal(attached["role"], role))
        place = pc.index_in(digests, value_set=here["digest"].combine_chunks())
        told = [here["value"], *([_kinds(line, source, here["scheme"])] if len(line.columns) > 1 else [])]
        for column, values in zip(line.columns, told, strict=False):
            if column not in raw.column_names:
                raw = raw.append_column(column, pa.nulls(raw.num_rows, pa.string()))
            filled = pc.coalesce(values.take(place), raw[column])
            raw = raw.set_column(raw.column_names.index(column), column, filled)
    return raw


def _kinds(line: Line, source: Source, schemes: pa.ChunkedArray) -> pa.ChunkedArray:
    """How the source writes each scheme: the first of its codes that means it."""
    written: dict[str, str] = {}
    for code, scheme in codes.read(line.parameter or "", source.folder).items():
        written.setdefault(scheme, code)
    place = pc.index_in(schemes, value_set=pa.array(list(written), pa.string()))
    return pa.chunked_array([pa.array(list(written.values()), pa.string()).take(place.combine_chunks())])


def keep(connection: sa.Connection, entry: int, attachment: Attachment) -> None:
    """From now on the row of a quarantine entry is read so."""
    connection.execute(sa.text(_KEPT), {"entry": entry, **attachment.said()})


def drop(connection: sa.Connection, source: str, digests: list[str], role: str) -> None:
    """Take it back for these versions of rows: they could not be mapped even so, or it never came to that."""
    connection.execute(sa.text(_DROPPED), {"source": source, "digests": digests, "role": role})


def roles(connection: sa.Connection, entry: int) -> set[str]:
    """Roles of a quarantine entry's row that somebody is attached to."""
    found: Any = connection.scalars(sa.text(_ROLES), {"entry": entry})
    return set(found)


_KEPT = """
INSERT INTO match_attachment (source, digest, role, scheme, value)
SELECT source, digest, :role, :scheme, :value FROM quarantine WHERE id = :entry
ON CONFLICT (source, digest, role) DO UPDATE SET scheme = excluded.scheme, value = excluded.value
"""
_DROPPED = """
DELETE FROM match_attachment WHERE source = :source AND digest = ANY (cast(:digests AS uuid[])) AND role = :role
"""
_ROLES = """
SELECT a.role FROM match_attachment AS a JOIN quarantine AS q ON q.source = a.source AND q.digest = a.digest WHERE q.id = :entry
"""
