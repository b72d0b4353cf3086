"""Index entries: what partner hubs say they hold, one row per certificate and identifier, kept apart from holdings.

A row of an index source is one announcement: it replaces all that was known under its handle. Entries follow from the
observations of the source as holdings do, so the order of arrival does not matter; they are never passed on, neither as
holdings nor in the feed. Epochs are ordered as bytes: of all that were ever announced the last is in force. A partner's
word counts for the region of its source alone: elsewhere it opens no entry, and its silence says nothing.

Here is the long way, which compares; what nobody knows yet went the short way (:mod:`hub.index_direct`).
"""

from __future__ import annotations

import sqlalchemy as sa

from connectors.errors import FatalError, UsageError
from hub import catalogue, database, decisions, home, index_keys, joining, mapped_rows, verify_sql
from hub.direct import Direct
from hub.exchange import sightings
from hub.incoming import Run
from hub.index_direct import Turn
from hub.joining import Join
from mappings import model


def begin(connection: sa.Connection, batch: sa.Row, short: Direct) -> Turn:
    """The merge's turn at the entries of its source: those that go the short way are copied. The key of a new epoch comes
    sealed with the cursor."""
    ended = _epoch_in_force(connection, batch.source)
    _keep_key(connection, batch)
    epoch = _epoch_in_force(connection, batch.source)
    own = connection.scalar(sa.text(_OWN), {"source": batch.source})
    turn = Turn(ended, epoch, own, connection.scalar(sa.text("SELECT clock_timestamp()")))
    turn.copy(connection, short)
    return turn


def update(connection: sa.Connection, run: Run, batch: sa.Row, turn: Turn) -> int:
    """Bring the entries of the handles in ``touched`` to what is announced now; within the merge. Returns entries opened
    and closed in this turn.

    FatalError ``index-key-missing`` where later announcements than those in force came without their key.
    """
    with joining.joined(connection, joining.count(connection, "touched"), "mapped_row") as join:
        run(_told(join))
    run(_HUB, hubs=sorted(hub for hub in turn.hubs if hub))
    for other in connection.scalars(sa.text("SELECT DISTINCT epoch FROM told WHERE epoch <> ''")):
        if turn.epoch is None or other > turn.epoch:
            raise FatalError("index-key-missing", source=batch.source, epoch=other)
    run(_ANNOUNCED, epoch=turn.epoch, own=turn.own)
    changed = turn.entries
    if turn.ended not in (None, turn.epoch):
        changed += run(_ENDED, epoch=turn.epoch, now=turn.now)
    if joining.count(connection, "announced"):  # on an empty one the planner would not bet
        run("ANALYZE announced")
        changed += run(_CLOSED, now=turn.now)
        changed += run(_OPENED, epoch=turn.epoch, now=turn.now)
    run(_UNSTATED, own=turn.own)
    run(_SCOPE, now=turn.now, own=turn.own)
    for table in ("told", "announced"):
        run(f"DROP TABLE {table}")
    sightings.look(connection, batch.source)
    return changed


def forget(source: str, *, actor: str, note: str = "") -> int:
    """Drop all that a partner hub announced through ``source``, as at the end of an agreement; returns the entries dropped.

    One transaction: entries, keys, scope, observations, ledger, quarantined rows and the cursor go; batches and landed
    pages stay. A batch under way can no longer be merged. UsageError ``index-source-unknown``.
    """
    kinds = [entity.code for entity in model.all_entities() if entity.kind == "index"]
    with database.engine().begin() as connection:
        bind = {"source": source, "kinds": kinds}
        if connection.scalar(sa.text(_IS_INDEX), bind) is None:
            raise UsageError("index-source-unknown", source=catalogue.shown(source))
        decisions.record(connection, "forget", source, actor=actor, note=note)
        dropped = connection.execute(sa.text("DELETE FROM index_entry WHERE source = :source"), bind).rowcount
        mapped_rows.clear(connection, connection.scalars(sa.text(_UNDER_WAY), bind))
        for statement in _FORGOTTEN:
            connection.execute(sa.text(statement), bind)
    return dropped


def mend_all() -> int:
    """:func:`mend` of every source that has entries or keys; returns the certificates mended."""
    with database.engine().connect() as connection:
        sources = connection.scalars(sa.text("SELECT source FROM index_key UNION SELECT source FROM index_entry")).all()
    return sum(mend(source) for source in sorted(sources))


def mend(source: str) -> int:
    """Make entries of ``source`` anew where they do not follow from what was announced; returns the certificates mended.

    One transaction; a merge of the source waits. What was recorded of them before stays as history.
    """
    hashing = home.keyed_hash()
    with database.engine().begin() as connection:
        connection.execute(sa.text("SELECT FROM source WHERE name = :source FOR UPDATE"), {"source": source})
        connection.execute(sa.text("SET LOCAL work_mem = '256MB'; SET LOCAL datestyle = 'ISO'"))
        epoch = _epoch_in_force(connection, source)
        bind = {"source": source, "epoch": epoch, "inner": hashing.inner, "outer": hashing.outer,
                "now": connection.scalar(sa.text("SELECT clock_timestamp()")),
                "own": connection.scalar(sa.text(_OWN), {"source": source})}  # fmt: skip
        for statement in (_AMISS, _TOUCHED_AMISS):
            connection.execute(sa.text(statement), bind)
        with joining.joined(connection, joining.count(connection, "touched"), "mapped_row") as join:
            connection.execute(sa.text(_told(join)), bind)
        for statement in (_ANNOUNCED, _CLOSED_AMISS, _OPENED):
            connection.execute(sa.text(statement), bind)
        mended = connection.scalar(sa.text("SELECT count(DISTINCT handle) FROM amiss")) or 0
        for table in ("announced", "told", "touched", "amiss"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
    return mended


def _epoch_in_force(connection: sa.Connection, source: str) -> str | None:
    latest = sa.text('SELECT max(epoch COLLATE "C") FROM index_key WHERE source = :source')
    return connection.scalar(latest, {"source": source})


def _keep_key(connection: sa.Connection, batch: sa.Row) -> None:
    """The epoch's key for lookups, as it came with the cursor; one that is kept and can be read stays as it is. A new epoch may
    have nothing in it: then only the cursor tells of it."""
    epoch = batch.cursor.get("epoch") if isinstance(batch.cursor, dict) else None
    sealed = index_keys.of_cursor(batch.cursor)
    if not isinstance(epoch, str) or sealed is None:
        return
    bind: dict[str, object] = {"source": batch.source, "epoch": epoch}
    kept = connection.scalar(sa.text("SELECT sealed FROM index_key WHERE source = :source AND epoch = :epoch"), bind)
    if not index_keys.readable(home.current(), kept, batch.source, epoch):
        connection.execute(sa.text(_KEY), {**bind, "sealed": sealed})


_UNDER_WAY = "SELECT id FROM batch WHERE source = :source AND state <> 'merged'"
_IS_INDEX = "SELECT 1 FROM source WHERE name = :source AND entity = ANY(:kinds) FOR UPDATE"
# `merges` moves, so that a batch begun before counts as overtaken; rows it staged are of no use then.
_FORGOTTEN = (
    "DELETE FROM index_key WHERE source = :source",
    "DELETE FROM index_scope WHERE source = :source",
    """DELETE FROM mapped_row AS m USING row_ledger AS l
    WHERE l.source = :source AND m.holding = l.holding AND m.id = l.mapped""",
    "DELETE FROM row_ledger WHERE source = :source",
    "DELETE FROM quarantine WHERE source = :source",
    """UPDATE source SET cursor = NULL, contract = NULL, as_of = NULL, last_success_at = NULL, hub = NULL,
      merges = merges + 1 WHERE name = :source""",
)
_HUB = """
UPDATE source SET hub = i.hub FROM (
  SELECT max(hub) AS hub FROM (SELECT hub FROM told UNION ALL SELECT unnest(CAST(:hubs AS text[]))) AS s
) AS i WHERE source.name = :source AND i.hub <> ''
"""
_KEY = """
INSERT INTO index_key (source, epoch, sealed) VALUES (:source, :epoch, :sealed)
ON CONFLICT (source, epoch) DO UPDATE SET sealed = excluded.sealed
"""
# What all division codes within the source's region begin with: 330000 is 33 (GB/T 2260).
_OWN = "SELECT regexp_replace(region, '(00)+$', '') FROM source WHERE name = :source"


def _told(join: Join) -> str:
    """``told``: what is announced now under each of the touched handles, its document read once. Of two announcements of one
    time the later position counts."""
    mapped = join("mapped_row", "m", "m.holding = t.holding AND m.source = :source")
    ledger = join(
        "row_ledger", "l", "l.source = :source AND l.row_key = m.row_key AND l.holding = m.holding AND l.mapped = m.id"
    )
    return f"""
CREATE TEMP TABLE told ON COMMIT DROP AS
SELECT DISTINCT ON (holding) holding, decode(handle, 'hex') AS handle, material, region, state, valid_from, valid_to, digest, hub,
  epoch, subjects, batch, file, "row"
FROM (
  SELECT holding, said_at, said_digest, batch, file, "row", d ->> 'certificate_number' AS handle, d ->> 'valid_from' AS valid_from,
    d ->> 'valid_to' AS valid_to, nullif(left(d ->> 'region', 6), '') AS region, a ->> 'material' AS material,
    a ->> 'state' AS state, a ->> 'digest' AS digest, a ->> 'hub' AS hub, a ->> 'epoch' AS epoch, a ->> 'subjects' AS subjects,
    (a ->> 'position')::numeric AS position
  FROM (
    SELECT *, d -> 'attributes' AS a FROM (
      SELECT t.holding, l.said_at, l.said_digest, l.batch, m.file, m."row", m.document::jsonb AS d
      FROM touched AS t {mapped} {ledger} OFFSET 0
    ) AS read OFFSET 0
  ) AS attributed
) AS said
WHERE handle ~ '^[0-9a-f]{{32}}$'
ORDER BY holding, said_at DESC, position DESC NULLS LAST, said_digest DESC
"""


# One row per subject of the touched handles, and one without identifier for each handle that has nothing in force.
_ANNOUNCED = """
CREATE TEMP TABLE announced ON COMMIT DROP AS
SELECT
  CASE WHEN s.subject IS NOT NULL THEN
    keyed_hash('index:' || :source || ':' || :epoch || ':' || split_part(s.subject, ':', 2), :inner, :outer)
  END AS identifier,
  t.handle, split_part(s.subject, ':', 1) AS role, t.material, t.region, t.state AS status, t.valid_from::date,
  t.valid_to::date, t.digest, t.batch, t.file, t."row"
FROM told AS t LEFT JOIN LATERAL string_to_table(
    CASE WHEN coalesce(starts_with(t.region, :own), true) AND t.state <> 'withdrawn' AND t.epoch = :epoch AND t.material <> ''
      THEN t.subjects END, ' '
  ) AS s (subject) ON s.subject <> ''
"""
_ENDED = """
UPDATE index_entry SET recorded_to = :now WHERE source = :source AND recorded_to IS NULL AND epoch <> :epoch
"""
_SAME = """
  SELECT FROM {other} AS o WHERE {join} o.handle = e.handle AND o.identifier = e.identifier AND o.role = e.role
    AND (o.material, o.region, o.status, o.valid_from, o.valid_to, o.digest)
      IS NOT DISTINCT FROM (e.material, e.region, e.status, e.valid_from, e.valid_to, e.digest)
"""
_CLOSED = f"""
UPDATE index_entry AS e SET recorded_to = :now FROM (SELECT DISTINCT handle FROM announced) AS a
WHERE e.source = :source AND e.handle = a.handle AND e.recorded_to IS NULL
  AND NOT EXISTS ({_SAME.format(other="announced", join="")})
"""
# Sorted as the primary key is: a million random identifiers inserted as they come would read half the index again.
_OPENED = f"""
INSERT INTO index_entry (identifier, source, handle, role, recorded_from, material, region, status, valid_from, valid_to,
  digest, epoch, batch, file, "row")
SELECT DISTINCT ON (e.identifier, e.handle, e.role) e.identifier, :source, e.handle, e.role, :now, e.material, e.region,
  e.status, e.valid_from, e.valid_to, e.digest, :epoch, e.batch, e.file, e."row"
FROM announced AS e WHERE e.identifier IS NOT NULL
  AND NOT EXISTS ({_SAME.format(other="index_entry", join="o.source = :source AND o.recorded_to IS NULL AND")})
ORDER BY e.identifier, e.handle, e.role
"""
# Entries that do not follow from what was announced: what is missing, what is there without it.
_AMISS = f"""
CREATE TEMP TABLE amiss ON COMMIT DROP AS
SELECT decode(key, 'hex') AS handle, holding FROM ({verify_sql.ENTRIES_OF}) AS d WHERE code IS NOT NULL
"""
_TOUCHED_AMISS = """
CREATE TEMP TABLE touched ON COMMIT DROP AS SELECT DISTINCT holding FROM amiss WHERE holding IS NOT NULL
"""
_CLOSED_AMISS = f"""
UPDATE index_entry AS e SET recorded_to = :now FROM (SELECT DISTINCT handle FROM amiss) AS a
WHERE e.source = :source AND e.handle = a.handle AND e.recorded_to IS NULL
  AND NOT (e.epoch = :epoch AND EXISTS ({_SAME.format(other="announced", join="")}))
"""
# What the pages say they are about counts, and that alone: then a partner is the authority on a material of which it has nothing to
# announce, and silent where it tells of a part. An epoch has one scope: what another read of it was told, and is told no more, goes.
_STATED = """
SELECT b.cursor ->> 'epoch' AS epoch, m AS material, left(r, 2) AS province, array_agg(DISTINCT r ORDER BY r) AS regions
FROM batch AS b, jsonb_array_elements_text(b.cursor -> 'materials') AS m,
  LATERAL (SELECT CASE WHEN length(t) = 6 THEN regexp_replace(t, '(00)+$', '') ELSE t END AS r
    FROM jsonb_array_elements_text(b.cursor -> 'regions') AS t) AS told
WHERE b.id = :batch AND starts_with(r, :own) AND r ~ '^[0-9]{2}([0-9]{2}){0,2}$' AND b.cursor ->> 'epoch' <> ''
  AND jsonb_typeof(b.cursor -> 'materials') = 'array' AND jsonb_typeof(b.cursor -> 'regions') = 'array'
GROUP BY b.cursor ->> 'epoch', m, left(r, 2)
"""
_UNSTATED = f"""
DELETE FROM index_scope AS c USING batch AS b
WHERE b.id = :batch AND jsonb_typeof(b.cursor -> 'materials') = 'array' AND c.source = :source AND c.epoch = b.cursor ->> 'epoch'
  AND NOT EXISTS (SELECT FROM ({_STATED}) AS s WHERE (s.material, s.province, s.regions) = (c.material, c.province, c.regions))
"""
_SCOPE = f"""
INSERT INTO index_scope (source, epoch, material, province, regions, recorded_from)
SELECT :source, epoch, material, province, regions, CAST(:now AS timestamptz) FROM ({_STATED}) AS s
ON CONFLICT DO NOTHING
"""
