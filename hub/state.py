"""The state digest: one number for all that was asserted and what follows from it, whatever way it came.

Left out is what may differ between two stores that say the same: surrogate keys, batch, file and row provenance,
contracts, recorded history, feed positions, and rows that are withdrawn, which assert nothing. An accepted row counts
with the version that stands (``observations``), not with the one delivered last. Each part is one statement over its
table: a hash a row, hashes added up, so that order does not matter and the server keeps nothing in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from hub import database

ALL = "all"


def digest(connection: sa.Connection) -> dict[str, str]:
    """Part -> 32 hex digits, and ``all`` over them. A part whose table this store does not have is left out.

    The parts are of one moment only when ``connection`` is in one snapshot (:func:`snapshot`).
    """
    found = {name: _part(connection, name) for name in PARTS if _exists(connection, name)}
    text = "\n".join(f"{name}={value}" for name, value in sorted(found.items()))
    return {**found, ALL: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}


@contextmanager
def snapshot(engine: sa.Engine | None = None, *, temporary: bool = False) -> Iterator[sa.Connection]:
    """A connection that reads the store as of one moment and hinders nobody: repeatable read, read only. ``temporary``:
    temporary tables can be made in it, which PostgreSQL calls writing; it is taken back at the end, whatever it did."""
    with (engine or database.engine()).connect() as plain:
        connection = plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=not temporary)
        with connection.begin() as transaction:
            yield connection
            if temporary:
                transaction.rollback()


def _exists(connection: sa.Connection, part: str) -> bool:
    return connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": PARTS[part][0]}) is not None


def _part(connection: sa.Connection, name: str) -> str:
    table, columns, where = PARTS[name]
    counted = connection.execute(sa.text(_DIGEST.format(table=table, columns=columns, where=where))).one()
    text = f"{counted.rows} {counted.one} {counted.other}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


# Sums of both halves, not exclusive or: a row that is there twice must not cancel itself.
_DIGEST = """
SELECT count(*) AS rows, coalesce(sum(('x' || left(h, 16))::bit(64)::bigint), 0)::text AS one,
  coalesce(sum(('x' || right(h, 16))::bit(64)::bigint), 0)::text AS other
FROM (SELECT md5(ROW({columns})::text) AS h FROM {table} WHERE {where}) AS hashed
"""


def _time(column: str) -> str:
    """Independent of the session's time zone."""
    return f"extract(epoch FROM {column})"


def _day(column: str) -> str:
    """Independent of the session's date style."""
    return f"{column} - date '1970-01-01'"


def _hex(column: str) -> str:
    return f"encode({column}, 'hex')"


# part -> table, columns, rows
PARTS = {
    "ledger": (
        "row_ledger",
        "source, row_key, verdict, CASE WHEN verdict <> 'accepted' THEN digest END, "
        f"CASE WHEN verdict <> 'accepted' THEN {_time('updated_at')} END",
        "verdict <> 'withdrawn'",
    ),
    "observations": (
        "observation",
        f"source, row_key, {_hex('holding')}, digest, {_time('updated_at')}, authority, md5(document::text)",
        "true",
    ),
    "holdings": (
        "holding",
        f"{_hex('key')}, material, digest, {_time('updated_at')}, authority, observations, conflicting, status, "
        f"{_day('issued_on')}, {_day('valid_from')}, {_day('valid_to')}, region",
        "true",
    ),
    "holders": ("holding_holder", f"{_hex('identifier')}, {_hex('holding')}, role", "true"),
    "quarantine": ("quarantine", "source, row_key, original_key, digest, verdict, reasons", "state = 'open'"),
    # One alone in its component is as one that no link ever named, unless it contradicts itself.
    "members": (
        "identity_member",
        f"{_hex('identifier')}, {_hex('component')}, {_hex('cluster')}, state, scheme, born_on, sex",
        "state = 'contradictory' OR component IN (SELECT component FROM identity_member GROUP BY component HAVING count(*) > 1)",
    ),
    "links": ("identity_link", f"{_hex('link')}, {_hex('one')}, {_hex('other')}, state", "true"),
    "decided": ("identity_decision", f"decision, {_hex('member')}, side, kind", "ended_by IS NULL"),
    "entries": (
        "index_entry",
        f"{_hex('identifier')}, source, {_hex('handle')}, role, material, region, status, {_day('valid_from')}, "
        f"{_day('valid_to')}, digest, epoch",
        "recorded_to IS NULL",
    ),
    "epochs": ("index_key", "source, epoch", "true"),
    "scope": ("index_scope", "source, epoch, material, province, regions", "true"),
}
