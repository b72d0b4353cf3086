"""Batches as operators see them: one row each in ``batch``, from the first fetch to the merge."""

from __future__ import annotations

import datetime as dt
import json
import secrets
import shlex
from typing import Any

import sqlalchemy as sa

from connectors.errors import FatalError, RetriableError, UsageError
from connectors.landing import Landing, Manifest
from connectors.source import Source
from hub import home, schema
from hub.clock import CHINA

UNFINISHED = ("open", "gated", "approved")
COUNTS = ("fetched", "unchanged", "accepted", "quarantined", "rejected")
UNAPPROVABLE = {"batch-header-missing", "batch-columns-missing", "batch-columns-unknown", "batch-rows-not-conserved"}


def begin(
    connection: sa.Connection,
    source: Source,
    contract: str,
    run_id: str | None,
    kind: str = "run",
    *,
    id: str | None = None,
    started_at: dt.datetime | None = None,
) -> sa.Row:
    """A new open batch, or the one of ``run_id`` again when a task is retried. Other unfinished batches of the source
    are superseded: nothing of theirs was merged, and what they held is fetched again. ``id``, ``started_at``: of a batch
    that is replayed."""
    connection.execute(
        sa.text(
            """INSERT INTO source (name, entity, region, authority, extent, promise_seconds)
            VALUES (:name, :entity, :region, :authority, :extent, :promise)
            ON CONFLICT (name) DO UPDATE SET entity = excluded.entity, region = excluded.region,
              authority = excluded.authority, extent = excluded.extent, promise_seconds = excluded.promise_seconds"""
        ),
        {
            "name": source.name,
            "entity": source.entity,
            "region": source.region,
            "authority": source.authority,
            "extent": source.extent,
            "promise": int(source.promise.total_seconds()),
        },
    )
    merges = connection.scalar(
        sa.text("SELECT merges FROM source WHERE name = :name FOR UPDATE"), {"name": source.name}
    )
    again = None
    if run_id is not None:
        again = connection.execute(
            sa.select(schema.batch).where(schema.batch.c.source == source.name, schema.batch.c.run_id == run_id)
        ).first()
        if again is not None and again.state == "merged":
            return again
    batch = again.id if again is not None else id or _new_id(source.name)
    if kind == "run":  # a release stands beside a run, it replaces none
        connection.execute(
            sa.text(
                "UPDATE batch SET state = 'superseded', finished_at = now() "
                "WHERE source = :source AND id <> :batch AND state = ANY(:unfinished)"
            ),
            {"source": source.name, "batch": batch, "unfinished": list(UNFINISHED)},
        )
    connection.execute(
        sa.text(
            """INSERT INTO batch (id, source, run_id, state, extent, contract, merges_seen, kind, started_at)
            VALUES (:batch, :source, :run_id, 'open', :extent, :contract, :merges, :kind,
              coalesce(CAST(:started_at AS timestamptz), clock_timestamp()))
            ON CONFLICT (id) DO UPDATE SET state = 'open', contract = excluded.contract,
              merges_seen = excluded.merges_seen, findings = '[]', finished_at = NULL"""
        ),
        {
            "batch": batch,
            "source": source.name,
            "run_id": run_id,
            "extent": source.extent,
            "contract": contract,
            "merges": merges,
            "kind": kind,
            "started_at": started_at,
        },
    )
    return get(connection, batch)


def _new_id(source: str) -> str:
    return f"{source}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def supersede_halted(connection: sa.Connection, source: str) -> list[str]:
    """After a merge, halted batches of the source can no longer be approved: their diff is against an older ledger. Returns
    which they were."""
    query = "UPDATE batch SET state = 'superseded' WHERE source = :source AND state = 'halted' RETURNING id"
    return sorted(connection.scalars(sa.text(query), {"source": source}))


def keep_key(connection: sa.Connection, source: Source) -> None:
    """Note by which columns the rows of the source are told apart from this merge on."""
    connection.execute(
        sa.text(
            """INSERT INTO setting (name, value) VALUES (:name, :value)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE setting.value <> excluded.value"""
        ),
        {"name": _KEY + source.name, "value": json.dumps(source.row_key, ensure_ascii=False)},
    )


def key(connection: sa.Connection, source: str) -> list[str] | None:
    """The columns of :func:`keep_key`; None before the first merge, or where a checkpoint was loaded since."""
    known = connection.scalar(sa.select(schema.setting.c.value).where(schema.setting.c.name == _KEY + source))
    return json.loads(known) if known else None


def known_rows(connection: sa.Connection, source: str) -> int:
    """Rows of the ledger that say something, or wait for a person."""
    query = "SELECT count(*) FROM row_ledger WHERE source = :source AND verdict <> 'withdrawn'"
    return int(connection.scalar(sa.text(query), {"source": source}) or 0)


_KEY = "row-key "  # of a setting, before the name of the source


def without_workspace(connection: sa.Connection, source: str) -> list[str]:
    """Batches of the source whose chunk files nobody needs any more."""
    return list(
        connection.scalars(
            sa.select(schema.batch.c.id).where(
                schema.batch.c.source == source, schema.batch.c.state.in_(("merged", "superseded", "failed"))
            )
        )
    )


def get(connection: sa.Connection, batch: str, *, alone: bool = False) -> sa.Row:
    """The batch, or UsageError ``batch-unknown``. ``alone``: nobody else changes it, or maps its rows, before the
    transaction ends."""
    query = sa.select(schema.batch).where(schema.batch.c.id == batch)
    row = connection.execute(query.with_for_update() if alone else query).first()
    if row is None:
        raise UsageError("batch-unknown", batch=batch)
    return row


def update(connection: sa.Connection, batch: str, **values: object) -> None:
    connection.execute(sa.update(schema.batch).where(schema.batch.c.id == batch).values(**values))


def took(connection: sa.Connection, batch: str, stage: str, seconds: float) -> None:
    """Add to the seconds of a stage; chunks of one batch add up."""
    connection.execute(
        sa.text(
            """UPDATE batch SET seconds = jsonb_set(seconds, ARRAY[:stage],
              to_jsonb(round((coalesce((seconds ->> :stage)::numeric, 0) + :seconds)::numeric, 3)))
            WHERE id = :batch"""
        ),
        {"batch": batch, "stage": stage, "seconds": seconds},
    )


def require(batch: sa.Row, *states: str) -> None:
    """FatalError ``batch-state`` unless the batch is in one of ``states``."""
    if batch.state not in states:
        raise FatalError("batch-state", batch=batch.id, state=batch.state, run=_again(batch))


def _again(batch: sa.Row) -> str:
    """The command that brings what the batch held: files that were handed in are under no cursor, and are fetched by no run."""
    given = [shlex.quote(str(name)) for name in _request(batch).get("input", [])]
    more = f" --input {given[0]}" if len(given) == 1 else " --input …" if given else ""
    return f"yici run {batch.source}{more}"


def usual_sizes(connection: sa.Connection, source: str, last: int = 20) -> list[int]:
    """Rows of the last merged batches that were not empty, newest first."""
    return list(
        connection.scalars(
            sa.select(schema.batch.c.fetched)
            .where(
                schema.batch.c.source == source,
                schema.batch.c.state == "merged",
                schema.batch.c.kind == "run",
                schema.batch.c.fetched > 0,
            )
            .order_by(schema.batch.c.started_at.desc())
            .limit(last)
        )
    )


def summary(batch: sa.Row) -> dict[str, Any]:
    """What a run prints: counts that add up, flags and reasons by code, seconds by stage."""
    return {
        "source": batch.source,
        "batch": batch.id,
        "run_id": batch.run_id,
        "state": batch.state,
        "as_of": batch.as_of.astimezone(CHINA).isoformat() if batch.as_of else None,
        **{name: getattr(batch, name) for name in (*COUNTS, "withdrawn")},
        "flags": batch.flags,
        "reasons": batch.reasons,
        "seconds": batch.seconds,
        "findings": batch.findings,
    }


def listed(
    connection: sa.Connection, source: str | None = None, state: str | None = None, limit: int = 50
) -> list[sa.Row]:
    """Batches, newest first."""
    query = sa.select(schema.batch).where(*_wanted(source, state))
    return list(connection.execute(query.order_by(schema.batch.c.started_at.desc()).limit(limit)))


def counted(connection: sa.Connection, source: str | None = None, state: str | None = None) -> int:
    """How many batches there are, as :func:`listed` lists them without a limit."""
    return int(connection.scalar(sa.select(sa.func.count(schema.batch.c.id)).where(*_wanted(source, state))) or 0)


def _wanted(source: str | None, state: str | None) -> list[sa.ColumnElement[bool]]:
    given = ((schema.batch.c.source, source), (schema.batch.c.state, state))
    return [column == value for column, value in given if value]


def approvable(batch: sa.Row) -> bool:
    """A halt over a number can be approved by a person; one over rows that cannot be mapped cannot."""
    return not any(finding["code"] in UNAPPROVABLE for finding in batch.findings)


def files(batch: sa.Row) -> list[dict[str, Any]]:
    """The files that were landed for a batch, from its manifest; none when it ended before anything was landed."""
    manifest = _manifest(batch)
    landed = manifest.files if manifest else ()
    return [{"name": one.name, "sha256": one.digest, "size": one.size} for one in landed]


def _request(batch: sa.Row) -> dict[str, Any]:
    """How the batch was asked for, as far as that is known."""
    try:
        manifest = _manifest(batch)
    except RetriableError:  # what is about to be said does not wait for the landing zone
        return {}
    return manifest.request if manifest else {}


def _manifest(batch: sa.Row) -> Manifest | None:
    try:
        return Landing(home.current().landing_url).read_manifest(batch.source, batch.id)
    except FatalError:
        return None
