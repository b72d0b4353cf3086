"""Decisions of people: landed as a source of their own before they take effect, so that a rebuild can replay them."""

from __future__ import annotations

import datetime as dt

import orjson
import sqlalchemy as sa

from connectors.landing import Landing
from hub import home, schema

SOURCE = "decisions"


def record(
    connection: sa.Connection, kind: str, source: str, *, actor: str, note: str = "", batch: str | None = None
) -> None:
    """A decision about a batch."""
    landed = _land({"kind": kind, "source": source, "batch": batch, "actor": actor, "note": note})
    connection.execute(
        sa.insert(schema.decision).values(kind=kind, source=source, batch=batch, actor=actor, note=note, landed=landed)
    )


def about(connection: sa.Connection, batch: str) -> list[dict[str, object]]:
    """Who decided what about a batch, when and why, in order; decisions about its rows counted by kind."""
    rows = connection.execute(
        sa.text(
            """SELECT kind, actor, note, min(decided_at) AS decided_at, count(digest) AS rows FROM decision
            WHERE batch = :batch GROUP BY kind, actor, note, landed ORDER BY 4"""
        ),
        {"batch": batch},
    )
    return [dict(row) for row in rows.mappings()]


def record_rows(
    connection: sa.Connection, kind: str, source: str, entries: list[int], *, actor: str, note: str = ""
) -> None:
    """A decision about quarantined rows: it holds for exactly these versions of them (key and digest)."""
    bind = {"kind": kind, "source": source, "entries": entries, "actor": actor, "note": note}
    versions = connection.execute(
        sa.text(
            "SELECT original_key::text AS row_key, digest::text AS digest FROM quarantine WHERE id = ANY(:entries)"
        ),
        bind,
    ).mappings()
    landed = _land(
        {"kind": kind, "source": source, "rows": [dict(row) for row in versions], "actor": actor, "note": note}
    )
    connection.execute(
        sa.text(
            """INSERT INTO decision (kind, source, batch, row_key, digest, actor, note, landed)
            SELECT :kind, :source, batch, original_key, digest, :actor, :note, :landed
            FROM quarantine WHERE id = ANY(:entries)"""
        ),
        {**bind, "landed": landed},
    )


def revoke_rows(connection: sa.Connection, kind: str, source: str, entries: list[int]) -> None:
    """Take back decisions that turned out impossible; the attempt and its revocation stay in the landing zone."""
    _land({"kind": f"revoked-{kind}", "source": source, "entries": entries})
    connection.execute(
        sa.text(
            """DELETE FROM decision AS d USING quarantine AS q
            WHERE q.id = ANY(:entries) AND d.source = :source AND d.kind = :kind AND d.digest = q.digest
              AND d.row_key = q.original_key"""
        ),
        {"entries": entries, "source": source, "kind": kind},
    )


def _land(content: dict[str, object]) -> str:
    decided_at = dt.datetime.now(dt.UTC)
    body = orjson.dumps({**content, "decided_at": decided_at}, option=orjson.OPT_SORT_KEYS)
    landing = Landing(home.current().landing_url)
    landed = landing.put(body, f"{decided_at:%Y%m%dT%H%M%S%f}-{content['kind']}.json")
    landing.write_manifest(SOURCE, f"{decided_at:%Y%m%dT%H%M%S%f}-{landed.digest[:8]}", [landed], fetched_at=decided_at)
    return landed.digest
