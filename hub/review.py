"""What people decide about batches and rows, carried out: approve, release, reject.

Each decision is landed and recorded before it takes effect (:mod:`hub.decisions`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import FatalError, RetriableError
from hub import (
    batches,
    database,
    decisions,
    failures,
    matching_attachment,
    pipeline,
    quarantine,
    releases,
    stages,
    staging,
)
from hub.journal import Entry
from hub.matching_attachment import Attachment


@failures.named
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


@failures.named
def release(entries: list[int], *, actor: str, note: str = "", replayed: Entry | None = None) -> list[dict[str, Any]]:
    """Let quarantined rows pass on a person's word: each source's rows go through mapping and merge as a small batch.

    A row that cannot be mapped at all (no usable identifier) cannot be released: FatalError ``release-unmappable``. Two
    versions of one row: UsageError ``release-conflicting``. A run of the source under way: RetriableError. ``replayed``: the
    merge that carried it out the first time.
    """
    with database.engine().connect() as connection:
        groups = quarantine.by_source(connection, entries)
        quarantine.one_version_each(connection, entries)
    return [_release(source, ids, actor, note, replayed) for source, ids in groups.items()]


@failures.named
def attach(
    entry: int, attachment: Attachment, *, actor: str, note: str = "", replayed: Entry | None = None
) -> dict[str, Any]:
    """Release a row with the identifier that a person says it is about. As :func:`release`, with FatalError
    ``attach-unmappable``."""
    with database.engine().connect() as connection:
        source = str(quarantine.show(connection, entry)["source"])
    return _release(source, [entry], actor, note, replayed, attachment)


def _release(
    source: str, ids: list[int], actor: str, note: str, replayed: Entry | None, attachment: Attachment | None = None
) -> dict[str, Any]:
    """``attachment``: of the one row, the holder that a person named."""
    kind = "attach" if attachment else "release"
    described = sources.load(source)
    with stages.alone(source):
        decided_at = dt.datetime.now(dt.UTC)
        with database.engine().begin() as connection:
            rows = quarantine.raw_rows(connection, ids, described.options.columns)
            batch = batches.begin(
                connection,
                described,
                pipeline.contract(described),
                None,
                kind="release",
                id=replayed.batch if replayed else None,
                started_at=replayed.started_at if replayed else decided_at,
            )
            quarantine.claim(connection, ids)  # others may have decided since
            said = attachment.said() if attachment else None
            landed = decisions.record_rows(connection, kind, source, ids, actor=actor, note=note, batch=batch.id,
                                           said=said, decided_at=decided_at)  # fmt: skip
            if attachment:
                matching_attachment.keep(connection, ids[0], attachment)
            staging.restage(batch.id, rows)
            batches.update(connection, batch.id, fetched=rows.num_rows, as_of=quarantine.as_of(connection, ids))
        try:
            passed = pipeline.map_and_gate(batch.id, 0).get("accepted", 0)
            if passed != rows.num_rows:
                raise FatalError(f"{kind}-unmappable", rows=rows.num_rows - passed, source=source)
            with database.engine().begin() as connection:
                batches.update(connection, batch.id, state="gated")
            pipeline.merge(batch.id, recorded_at=replayed.known_at if replayed else None)
        except BaseException:
            with contextlib.suppress(
                sa.exc.DBAPIError, OSError, RetriableError
            ):  # what went wrong first is what is told
                _undo(landed)
            raise
        with database.engine().begin() as connection:
            quarantine.decided(connection, ids, "released", actor)
        return pipeline.publish(batch.id)


def _undo(landed: decisions.Landed) -> None:
    """A decision that could not be carried out holds no longer."""
    with database.engine().begin() as connection:
        if batches.get(connection, landed.content["batch"]).state != "merged":
            decisions.revoke(landed)
            releases.undo(connection, landed)


@failures.named
def reject(entries: list[int], *, actor: str, note: str = "") -> int:
    """Close quarantined rows for good: these versions stay out until the source sends another. RetriableError
    ``source-busy`` while one of them is being released."""
    with database.engine().connect() as connection:
        groups = quarantine.by_source(connection, entries)
    for source in groups:
        releases.take_back(database.engine(), source)
    with database.engine().begin() as connection:
        quarantine.claim(connection, entries)
        for source, ids in groups.items():
            if releases.under_way(connection, ids):
                raise RetriableError("source-busy", source=source)
            decisions.record_rows(connection, "reject", source, ids, actor=actor, note=note)
            quarantine.decided(connection, ids, "rejected", actor)
    return len(entries)
