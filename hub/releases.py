"""Releases of quarantined rows that were cut off, and which decisions about rows are in force.

A release (or an ``attach``) is decided, and takes effect with the merge of its batch. Where its process was killed in between
it never was in force: whoever comes next to the source takes it back, in the store and in the landing zone, so that a rebuild
does not carry it out either. The batch of a release begins at the moment of the decision: so the two know each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from connectors.landing import Landing
from hub import batches, decisions, home, matching_attachment
from hub.decisions import Landed

KINDS = ("release", "attach")


@contextmanager
def locked(engine: sa.Engine, source: str) -> Iterator[bool]:
    """Whether nobody else runs the source or releases rows of it; if so nobody does meanwhile: a session lock, which ends
    with the process at the latest."""
    key = {"name": source}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        if not guard.scalar(sa.text("SELECT pg_try_advisory_lock(hashtextextended(:name, 7))"), key):
            yield False
            return
        try:
            yield True
        finally:
            with suppress(sa.exc.DBAPIError):  # where the connection is gone so is the lock
                guard.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended(:name, 7))"), key)


def in_force(connection: sa.Connection, source: str, batch: str) -> list[str]:
    """Digests of the rows that people let pass, as the last decision about each says. A release counts once it is merged, or
    for ``batch``, its own."""
    return list(connection.scalars(sa.text(_IN_FORCE), {"source": source, "batch": batch}))


def under_way(connection: sa.Connection, entries: list[int]) -> bool:
    """Whether one of these entries of the quarantine is being released."""
    return bool(connection.scalar(sa.text(_UNDER_WAY), {"entries": entries}))


def unmerged(connection: sa.Connection, source: str | None = None) -> list[sa.Row]:
    """``id`` and ``source`` of the releases that have begun and are neither merged nor taken back: under way, or cut off. None
    in a store that is being rebuilt, where each is carried out again."""
    return list(connection.execute(sa.text(_UNMERGED), {"source": source}))


def unfinished(engine: sa.Engine) -> list[str]:
    """Batches of the releases that were cut off; those under way are none."""
    return [batch for source in _sources(engine) for batch in _cut_off(engine, source)]


def take_back(engine: sa.Engine, source: str | None = None) -> int:
    """Take back the releases of ``source``, or of all, that were cut off; returns how many there were."""
    done = 0
    for name in _sources(engine, source):
        with locked(engine, name) as alone:
            done += settle(engine, name) if alone else 0
    return done


def settle(engine: sa.Engine, source: str) -> int:
    """As :func:`take_back`, for one who is alone with the source. Landed first: killed in between it is done once more."""
    with engine.begin() as connection:
        cut_off = {row.id for row in unmerged(connection, source)}
        if not cut_off:
            return 0
        landed = list(decisions.every(Landing(home.current().landing_url)))
        over = revoked(landed)
        found = [one for one in landed if one.content["kind"] in KINDS and one.content["batch"] in cut_off]
        for one in found:
            if one.content["batch"] not in over:
                decisions.revoke(one)
            undo(connection, one)
        # Each batch once: changed twice, its source is looked at, whose row a merge may have locked that waits for this.
        for batch in cut_off - {one.content["batch"] for one in found}:
            batches.update(connection, batch, state="failed", finished_at=sa.func.now())
    return len(cut_off)


def undo(connection: sa.Connection, decision: Landed) -> None:
    """Nothing of a release that never was merged is left in the store."""
    content = decision.content
    connection.execute(sa.text("DELETE FROM decision WHERE landed = :landed"), {"landed": decision.digest})
    if content["kind"] == "attach":
        digests = [row["digest"] for row in content["rows"]]
        matching_attachment.drop(connection, content["source"], digests, content["role"])
    batches.update(connection, content["batch"], state="failed", finished_at=sa.func.now())


def revoked(landed: list[Landed]) -> set[str]:
    """Batches of releases that were taken back."""
    kinds = {f"revoked-{kind}" for kind in KINDS}
    return {str(one.content["batch"]) for one in landed if one.content["kind"] in kinds and one.content.get("batch")}


def _sources(engine: sa.Engine, source: str | None = None) -> list[str]:
    with engine.connect() as connection:
        return sorted({row.source for row in unmerged(connection, source)})


def _cut_off(engine: sa.Engine, source: str) -> list[str]:
    with locked(engine, source) as alone, engine.connect() as connection:
        return [row.id for row in unmerged(connection, source)] if alone else []


# The batch that carries out a decision about rows, before it is merged.
_BEGUN = "b.kind = 'release' AND b.state <> 'merged' AND b.source = d.source AND b.started_at = d.decided_at"
_ORDINARY = "NOT EXISTS (SELECT FROM setting WHERE name = 'rebuild')"
_IN_FORCE = f"""
SELECT digest::text FROM (
  SELECT DISTINCT ON (d.digest) d.digest, d.kind FROM decision AS d
  WHERE d.source = :source AND d.digest IS NOT NULL AND d.kind IN ('release', 'attach', 'reject')
    AND NOT EXISTS (SELECT FROM batch AS b WHERE {_BEGUN} AND b.id <> :batch)
  ORDER BY d.digest, d.decided_at DESC, d.id DESC) AS last
WHERE kind <> 'reject'
"""
_UNDER_WAY = f"""
SELECT EXISTS (
  SELECT FROM quarantine AS q JOIN decision AS d ON d.source = q.source AND d.row_key = q.original_key AND d.digest = q.digest
    JOIN batch AS b ON {_BEGUN}
  WHERE q.id = ANY (:entries) AND d.kind IN ('release', 'attach') AND {_ORDINARY})
"""
# What failed and was undone has left no decision.
_UNMERGED = f"""
SELECT b.id, b.source FROM batch AS b
WHERE b.kind = 'release' AND b.state <> 'merged' AND (cast(:source AS text) IS NULL OR b.source = :source)
  AND (b.state <> 'failed' OR EXISTS (SELECT FROM decision AS d
    WHERE {_BEGUN} AND d.kind IN ('release', 'attach'))) AND {_ORDINARY}
ORDER BY b.id
"""
