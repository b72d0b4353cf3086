"""Quarantine: rows that did not pass, with raw bytes, file, row number and reasons, until somebody decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import sqlalchemy as sa

from connectors.errors import FatalError, UsageError
from hub import copying, kept_rows, schema


def listed(
    connection: sa.Connection,
    *,
    source: str | None = None,
    batch: str | None = None,
    state: str | None = "open",
    reason: str | None = None,
    limit: int = 100,
) -> list[sa.Row]:
    """Entries, newest first, without the raw row (it holds personal data)."""
    table, file = schema.quarantine.c, schema.landed_file.c
    query = (
        sa.select(table.id, table.source, table.batch, table.verdict, table.state, table.reasons, table.row,
                  table.created_at, file.name.label("file"))
        .join(schema.landed_file, file.id == table.file)
        .where(*_wanted(source, batch, state, reason))
        .order_by(table.id.desc())
        .limit(limit)
    )  # fmt: skip
    return list(connection.execute(query))


def counted(
    connection: sa.Connection,
    *,
    source: str | None = None,
    batch: str | None = None,
    state: str | None = "open",
    reason: str | None = None,
) -> int:
    """How many entries there are, as :func:`listed` lists them without a limit."""
    wanted = _wanted(source, batch, state, reason)
    return int(connection.scalar(sa.select(sa.func.count(schema.quarantine.c.id)).where(*wanted)) or 0)


def _wanted(
    source: str | None, batch: str | None, state: str | None, reason: str | None
) -> list[sa.ColumnElement[bool]]:
    table = schema.quarantine.c
    given = ((table.source, source), (table.batch, batch), (table.state, state))
    wanted = [column == value for column, value in given if value is not None]
    return [*wanted, table.reasons.any(reason)] if reason else wanted


def show(connection: sa.Connection, entry: int) -> dict[str, Any]:
    """One entry with its raw row. UsageError ``quarantine-unknown``."""
    row = connection.execute(
        sa.text(
            """SELECT q.id, q.source, q.batch, q.verdict, q.state, q.reasons, q.raw, f.name AS file, f.digest AS file_digest,
              q."row", q.created_at, q.decided_at, q.decided_by,
              (SELECT d.note FROM decision AS d WHERE d.source = q.source AND d.row_key = q.original_key
                AND d.digest = q.digest ORDER BY d.id DESC LIMIT 1) AS note
            FROM quarantine AS q JOIN landed_file AS f ON f.id = q.file WHERE q.id = :entry"""
        ),
        {"entry": entry},
    ).first()
    if row is None:
        raise UsageError("quarantine-unknown", entry=entry)
    return {str(name): value for name, value in row._mapping.items()} | {"raw": bytes(row.raw).decode(errors="replace")}


def claim(connection: sa.Connection, entries: list[int]) -> None:
    """Nobody else decides these entries before the transaction ends. FatalError ``quarantine-decided`` where somebody has."""
    rows = connection.execute(
        sa.text("SELECT id, state, decided_at FROM quarantine WHERE id = ANY(:entries) ORDER BY id FOR UPDATE"),
        {"entries": entries},
    ).all()
    for row in rows:
        if row.decided_at is not None:
            raise FatalError("quarantine-decided", entry=row.id, state=row.state)


def by_source(connection: sa.Connection, entries: list[int]) -> dict[str, list[int]]:
    """Open entries grouped by source. UsageError for an unknown entry, FatalError for one that is decided already."""
    rows = connection.execute(
        sa.text("SELECT id, source, state FROM quarantine WHERE id = ANY(:entries) ORDER BY id"),
        {"entries": entries},
    ).all()
    for entry in sorted(set(entries) - {row.id for row in rows}):
        raise UsageError("quarantine-unknown", entry=entry)
    for row in rows:
        if row.state != "open":
            raise FatalError("quarantine-decided", entry=row.id, state=row.state)
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(row.source, []).append(row.id)
    return groups


def one_version_each(connection: sa.Connection, entries: list[int]) -> None:
    """UsageError ``release-conflicting`` when two entries are versions of one row: only one can be right."""
    several = connection.execute(
        sa.text(
            """SELECT array_agg(id ORDER BY id) AS ids FROM quarantine WHERE id = ANY(:entries)
            GROUP BY source, original_key HAVING count(*) > 1 ORDER BY 1 LIMIT 1"""
        ),
        {"entries": entries},
    ).first()
    if several:
        raise UsageError("release-conflicting", entries=", ".join(map(str, several.ids)))


def raw_rows(connection: sa.Connection, entries: list[int], expected: Sequence[str] = ()) -> pa.Table:
    """Raw columns (strings) of entries of one source, with ``_row``, ``_file``, ``_row_key``, ``_digest``; those of the columns
    ``expected`` that no entry has are null. FatalError ``release-altered`` when a row is not the one that was delivered."""
    listing = "{" + ",".join(map(str, entries)) + "}"
    query = """SELECT id, raw, file, "row", original_key, digest
      FROM quarantine WHERE id = ANY({entries}::bigint[]) ORDER BY id"""
    fields = {
        "_entry": pa.int64(),
        "raw": pa.binary(),
        "_file": pa.int64(),
        "_row": pa.int64(),
        "_row_key": pa.binary(16),
        "_digest": pa.binary(16),
    }
    found = copying.out_of(connection, query, pa.schema(fields), {"entries": listing})
    if (altered := kept_rows.differing(found["raw"], found["_digest"])).any():
        raise FatalError(
            "release-altered", entries=", ".join(map(str, found["_entry"].filter(pa.array(altered)).to_pylist()))
        )
    lines = found["raw"].to_pylist()  # a person's choice of rows, not a batch
    # Entries from before and after a column was added have different ones.
    named = dict.fromkeys(name for line in lines for name in orjson.loads(line))
    raw = kept_rows.columns(lines, [*named, *(name for name in expected if name not in named)])
    for name in ("_file", "_row", "_row_key", "_digest"):
        raw = raw.append_column(name, found[name])
    return raw


def as_of(connection: sa.Connection, entries: list[int]) -> Any:
    """The as_of of the batches that the entries came with, the latest."""
    return connection.scalar(
        sa.text(
            "SELECT max(b.as_of) FROM quarantine AS q JOIN batch AS b ON b.id = q.batch WHERE q.id = ANY(:entries)"
        ),
        {"entries": entries},
    )


def decided(connection: sa.Connection, entries: list[int], state: str, actor: str) -> None:
    """Note what was decided, and for a rejection also in the ledger."""
    bind = {"entries": entries, "state": state, "actor": actor}
    connection.execute(
        sa.text(
            "UPDATE quarantine SET state = :state, decided_at = now(), decided_by = :actor WHERE id = ANY(:entries)"
        ),
        bind,
    )
    if state == "rejected":
        connection.execute(
            sa.text(
                """UPDATE row_ledger AS l SET verdict = 'rejected' FROM quarantine AS q
                WHERE q.id = ANY(:entries) AND l.source = q.source AND l.row_key = q.row_key AND l.digest = q.digest"""
            ),
            bind,
        )


def open_counts(connection: sa.Connection) -> list[sa.Row]:
    """Open entries by source and reason."""
    return list(
        connection.execute(
            sa.text(
                """SELECT source, reason, count(*) AS rows FROM quarantine, unnest(reasons) AS reason
                WHERE state = 'open' GROUP BY source, reason ORDER BY source, rows DESC"""
            )
        )
    )
