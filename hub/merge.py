"""The merge: one transaction that moves ledger, quarantine, holdings, versions, feed and cursor.

Of the accepted versions of a row the greatest by (time at the source, digest) is its observation; of the observations of
a holding the greatest by (authority of the source, time at the source, digest) is in force. So the order of arrival
does not matter for what is held. The ledger and the quarantine follow the last delivery among versions of one time: what
is open there is what is wrong in it. What a partner hub announces, and links between identifiers, go the same way up to
their observations, and from there into index entries or clusters instead of holdings.

New rows, and holdings and entries that nobody else knows, go the short way (:mod:`hub.direct`, :mod:`hub.index_direct`), all
others the long way (:mod:`hub.incoming`, :mod:`hub.standing`, :mod:`hub.index_entries`). Ledgers of several sources move side
by side; holdings of one material take turns.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from connectors.errors import RetriableError
from hub import diff, feed_head, identity, identity_past, incoming, index_entries, mapped_rows, repeats, standing
from hub.direct import Direct
from hub.home import KeyedHash
from hub.incoming import Run
from hub.workspace import Workspace
from mappings import model


@dataclass(frozen=True)
class Merged:
    """What the merge did, in rows and holdings."""

    accepted: int
    quarantined: int
    rejected: int
    older: int
    tied: int  # accepted, but another version of the same time is in force
    withdrawn: int  # rows that a snapshot lacks, or that their source took back
    holdings_changed: int  # or index entries, or members of clusters
    recorded_at: dt.datetime  # never before that of a merge that was committed earlier
    known_as_of: dt.datetime | None  # of the source, before this merge
    behind: bool  # nothing of it was taken: an older snapshot than one that is known, or rows that all are older


def merge(
    connection: sa.Connection,
    batch: sa.Row,
    material: str,
    authority: int,
    hashing: KeyedHash,
    *,
    kind: str = "certificate",
    recorded_at: dt.datetime | None = None,
) -> Merged:
    """Merge the gated ``batch`` within the caller's transaction. ``kind``: of the entity; ``recorded_at``: when a merge that is
    replayed became known.

    Raises RetriableError ``batch-overtaken`` when another batch of the source was merged since the diff, ``chunk-missing``
    when not all of its rows are there.
    """
    source = connection.execute(
        sa.text("SELECT merges, as_of, listed_as_of FROM source WHERE name = :source FOR UPDATE"),
        {"source": batch.source},
    ).one()
    if batch.kind == "run" and source.merges != batch.merges_seen:
        raise RetriableError("batch-overtaken", batch=batch.id, source=batch.source)
    workspace = Workspace(batch.id)
    withdraws = diff.withdraws(batch)
    bind = {
        "batch": batch.id,
        "source": batch.source,
        "contract": diff.contract_key(batch.contract),
        "as_of": batch.as_of,
        "listed_as_of": source.listed_as_of,
        "listed": withdraws,
        "snapshot": batch.extent == "snapshot",
        "material": material,
        "authority": authority,
        "inner": hashing.inner,
        "outer": hashing.outer,
    }

    def run(statement: str, **more: object) -> int:
        return connection.execute(sa.text(statement), {**bind, **more}).rowcount

    connection.execute(sa.text("SET LOCAL work_mem = '256MB'"))
    incoming.prepare(run)
    short = Direct(
        batch,
        material,
        authority,
        workspace,
        repeats.deliveries(workspace),
        incoming.reserved(connection, batch.source),
        source.listed_as_of,
        diff.knows(connection, batch.source),
    )
    _copy(connection, short)
    incoming.add_again(connection, run, workspace)
    incoming.judge(connection, run, forced=batch.kind == "release")
    incoming.quarantine(run)
    held = kind not in ("index", "link")
    turn = index_entries.begin(connection, batch, short) if kind == "index" else None  # of one source, whose turn it is
    if turn is None:
        # From here on rows of one material type can meet in one holding: those merges take turns.
        connection.execute(
            sa.text("SELECT pg_advisory_xact_lock(hashtextextended('yici-holding-' || :material, 0))"), bind
        )
        if held:
            short.into_holdings(connection)
        else:
            short.into_shared(connection)
    if withdraws:
        diff.listed(connection, batch.id)
    earlier = diff.earlier(batch.id) if withdraws else {}
    incoming.touch(connection, run, withdraws=withdraws, several=bool(earlier))
    if held:
        standing.remember(connection, run)
    tied, withdrawn = incoming.settle(connection, run, withdraws=withdraws)
    incoming.deny(connection, run, batch.id, earlier)
    changed = 0
    if turn is not None:
        changed = index_entries.update(connection, run, batch, turn)
    elif kind == "link":
        changed = identity.update(connection, run, batch)
    else:
        changed = standing.update(connection, run)
        if model.load(material).claims:
            short.changed(connection, every=identity.watching(connection))
            identity.refresh(connection)
    verdicts = {
        row.verdict: row.rows
        for row in connection.execute(
            sa.text("SELECT verdict, count(*) AS rows FROM incoming WHERE fate IS DISTINCT FROM 'older' GROUP BY 1")
        )
    }
    older = connection.scalar(sa.text("SELECT count(*) FROM incoming WHERE fate = 'older'")) or 0
    incoming.forget(connection, run)
    run(_SOURCE)
    known_at, announced = _announce(connection, run, short, recorded_at, held=held)
    for table in _TEMPORARY:
        run(f"DROP TABLE IF EXISTS {table}")
    before = withdraws and source.listed_as_of is not None and batch.as_of < source.listed_as_of
    return Merged(
        short.accepted + verdicts.get("accepted", 0) + verdicts.get("retracted", 0),
        verdicts.get("quarantined", 0),
        verdicts.get("rejected", 0),
        older,
        tied,
        withdrawn,
        announced if held else changed,
        known_at,
        source.listed_as_of if before else source.as_of,
        before or bool(older and not short.accepted and not verdicts),
    )


def _copy(connection: sa.Connection, short: Direct) -> None:
    """Each mapped row on its way; the gate's counts say how many there must be."""
    batch = short.batch
    short.into_ledger(connection)
    for chunk, rows in short.others():
        incoming.add(connection, rows, short.workspace.read("needed", chunk, ["ordinal", "seen_at"]))
    mapped_rows.settle(connection, batch.id, short.blocks)
    if batch.kind == "run" and sum(short.counts.values()) != batch.accepted + batch.quarantined + batch.rejected:
        raise RetriableError("chunk-missing", batch=batch.id, chunk="?")


def _announce(
    connection: sa.Connection, run: Run, short: Direct, replayed: dt.datetime | None, *, held: bool
) -> tuple[dt.datetime, int]:
    """Positions in the feed, and the time at which all this becomes known; returns it and how many holdings changed.

    The lock on the head is held to commit: positions follow the order of commits and a reader can never miss one. Times
    follow it too, each merge later than the one before, whatever the clock does. Which moment a merge became known is said
    last, as near to the commit as can be: who asks later what was known then must not be told more than could be seen.
    """
    head = feed_head.locked(connection, replayed)
    announced = 0
    if held:
        last = short.feed(connection, head.position, head.at)
        announced = last - head.position + standing.feed(run, last, head.at)
    known_at = sa.text("SELECT greatest(coalesce(CAST(:replayed AS timestamptz), clock_timestamp()), :at)")
    recorded_at: dt.datetime = connection.execute(known_at, {"replayed": replayed, "at": head.at}).scalar_one()
    if held:
        standing.close(run, recorded_at)
    identity_past.close(connection, recorded_at)
    run(_SUCCESS, recorded_at=recorded_at)
    run("UPDATE feed_head SET position = position + :announced, recorded_at = :recorded_at",
        announced=announced, recorded_at=recorded_at)  # fmt: skip
    return recorded_at, announced


_TEMPORARY = ("incoming", "again", "shared", "unsaid", "touched", "listed", "before", "in_force", "changed", "ended")
_SUCCESS = """
UPDATE source SET last_success_at = :recorded_at FROM batch AS b
WHERE b.id = :batch AND b.kind = 'run' AND source.name = b.source
"""
_SOURCE = """
UPDATE source SET
  cursor = coalesce(b.cursor, source.cursor),
  contract = CASE WHEN b.cursor IS NULL THEN source.contract ELSE b.contract END,
  as_of = greatest(source.as_of, b.as_of),
  listed_as_of = CASE WHEN :listed THEN greatest(source.listed_as_of, b.as_of) ELSE source.listed_as_of END,
  merges = merges + CASE WHEN b.kind = 'run' THEN 1 ELSE 0 END
FROM batch AS b WHERE b.id = :batch AND source.name = b.source
"""
