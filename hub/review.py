"""What people decide about batches and rows, carried out: approve, release, reject.

Each decision is landed and recorded before it takes effect (:mod:`hub.decisions`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import FatalError
from hub import batches, database, decisions, pipeline, quarantine, staging


def approve(batch: str, *, actor: str, note: str = "") -> dict[str, Any]:
    """Let a halted batch through, on a person's word, and finish it."""
    with database.engine().begin() as connection:
        row = batches.get(connection, batch)
        batches.require(row, "halted", "approved")  # approved: a merge that was cut off is finished
        if not batches.approvable(row):
            raise FatalError("batch-not-approvable", batch=batch, source=row.source)
        if row.state == "halted":
            decisions.record(connection, "approve", row.source, actor=actor, note=note, batch=batch)
            batches.update(connection, batch, state="approved")
    pipeline.merge(batch)
    return pipeline.publish(batch)


def release(entries: list[int], *, actor: str, note: str = "") -> list[dict[str, Any]]:
    """Let quarantined rows pass on a person's word: each source's rows go through mapping and merge as a small batch.

    A row that cannot be mapped at all (no usable identifier) cannot be released: FatalError ``release-unmappable``. Two
    versions of one row: UsageError ``release-conflicting``. A run of the source under way: RetriableError.
    """
    with database.engine().connect() as connection:
        groups = quarantine.by_source(connection, entries)
        quarantine.one_version_each(connection, entries)
    return [_release(source, ids, actor, note) for source, ids in groups.items()]


def _release(source: str, ids: list[int], actor: str, note: str) -> dict[str, Any]:
    described = sources.load(source)
    with pipeline.alone(source):
        with database.engine().begin() as connection:
            rows = quarantine.raw_rows(connection, ids)
            batch = batches.begin(connection, described, pipeline.contract(described), None, kind="release")
            decisions.record_rows(connection, "release", source, ids, actor=actor, note=note)
            staging.restage(connection, batch.id, rows)
            batches.update(connection, batch.id, fetched=rows.num_rows, as_of=quarantine.as_of(connection, ids))
        try:
            passed = pipeline.map_and_gate(batch.id, 0).get("accepted", 0)
            if passed != rows.num_rows:
                raise FatalError("release-unmappable", rows=rows.num_rows - passed, source=source)
            with database.engine().begin() as connection:
                batches.update(connection, batch.id, state="gated")
            pipeline.merge(batch.id)
        except BaseException:
            with database.engine().begin() as connection:
                decisions.revoke_rows(connection, "release", source, ids)
                batches.update(connection, batch.id, state="failed", finished_at=sa.func.now())
            raise
        with database.engine().begin() as connection:
            quarantine.decided(connection, ids, "released", actor)
        return pipeline.publish(batch.id)


def reject(entries: list[int], *, actor: str, note: str = "") -> int:
    """Close quarantined rows for good: these versions stay out until the source sends another."""
    with database.engine().begin() as connection:
        for source, ids in quarantine.by_source(connection, entries).items():
            decisions.record_rows(connection, "reject", source, ids, actor=actor, note=note)
            quarantine.decided(connection, ids, "rejected", actor)
    return len(entries)
