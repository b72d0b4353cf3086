"""Index entries: what partner hubs say they hold, one row per certificate and identifier, kept apart from holdings.

A row of an index source is one announcement: it replaces all that was known under its handle. Entries follow from the
observations of the source as holdings do, so the order of arrival does not matter; they are never passed on, neither as
holdings nor in the feed. Epochs are ordered as bytes: of all that were ever announced the last is in force. A partner's
word counts for the region of its source alone: elsewhere it opens no entry, and its silence says nothing.
"""

from __future__ import annotations

import sqlalchemy as sa

from connectors.errors import FatalError, UsageError
from hub import catalogue, database, decisions, home, index_keys, mapped_rows, verify_sql
from hub.exchange import sightings
from hub.incoming import Run
from mappings import model


def update(connection: sa.Connection, run: Run, batch: sa.Row, agreed: bytes) -> int:
    """Bring the entries of the handles in ``touched`` to what is announced now; within the merge. Returns entries opened
    and closed. ``agreed``: the key agreed with the partner hub, 32 bytes."""
    run(_HUB)
    ended = _epoch_in_force(connection, batch.source)
    epochs = set(connection.scalars(sa.text(_EPOCHS), {"source": batch.source}))
    # A new epoch may have nothing in it: then only the cursor tells of it.
    if isinstance(batch.cursor, dict) and isinstance(batch.cursor.get("epoch"), str):
        epochs.add(batch.cursor["epoch"])
    for epoch in sorted(epochs):
        _keep_key(connection, batch.source, epoch, agreed)
    epoch = _epoch_in_force(connection, batch.source)
    now = connection.scalar(sa.text("SELECT clock_timestamp()"))
    own = connection.scalar(sa.text(_OWN), {"source": batch.source})
    run(_ANNOUNCED, epoch=epoch, own=own)
    run("ANALYZE announced")
    closed = run(_ENDED, epoch=epoch, now=now) if ended not in (None, epoch) else 0
    closed += run(_CLOSED, now=now)
    opened = run(_OPENED, epoch=epoch, now=now)
    run(_SCOPE, epoch=epoch, now=now)
    run(_SCOPE_STATED, now=now, own=own)
    run("DROP TABLE announced")
    sightings.look(connection, batch.source)
    return opened + closed


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
        connection.execute(sa.text(_AMISS), bind)
        for statement in (_TOUCHED_AMISS, _ANNOUNCED, _CLOSED_AMISS, _OPENED):
            connection.execute(sa.text(statement), bind)
        mended = connection.scalar(sa.text("SELECT count(DISTINCT handle) FROM amiss")) or 0
        for table in ("announced", "touched", "amiss"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
    return mended


def _epoch_in_force(connection: sa.Connection, source: str) -> str | None:
    latest = sa.text('SELECT max(epoch COLLATE "C") FROM index_key WHERE source = :source')
    return connection.scalar(latest, {"source": source})


def _keep_key(connection: sa.Connection, source: str, epoch: str, agreed: bytes) -> None:
    """Seal the epoch's key for lookups, anew only where the kept one is another or cannot be read."""
    key, about = index_keys.epoch_key(agreed, epoch), index_keys.sealed_for(source, epoch)
    bind: dict[str, object] = {"source": source, "epoch": epoch}
    kept = connection.scalar(sa.text("SELECT sealed FROM index_key WHERE source = :source AND epoch = :epoch"), bind)
    try:
        if kept is not None and index_keys.unseal(home.current(), kept, about) == key:
            return
    except FatalError:
        pass
    bind["sealed"] = index_keys.seal(home.current(), key, about)
    connection.execute(sa.text(_KEY), bind)


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
_EPOCHS = """
SELECT DISTINCT o.document -> 'attributes' ->> 'epoch' FROM touched JOIN observation AS o USING (holding)
WHERE o.source = :source AND o.document -> 'attributes' ->> 'epoch' <> ''
"""
_HUB = """
UPDATE source SET hub = i.hub FROM (
  SELECT max(o.document -> 'attributes' ->> 'hub') AS hub FROM touched JOIN observation AS o USING (holding)
  WHERE o.source = :source
) AS i WHERE source.name = :source AND i.hub <> ''
"""
_KEY = """
INSERT INTO index_key (source, epoch, sealed) VALUES (:source, :epoch, :sealed)
ON CONFLICT (source, epoch) DO UPDATE SET sealed = excluded.sealed
"""
# What all division codes within the source's region begin with: 330000 is 33 (GB/T 2260).
_OWN = "SELECT regexp_replace(region, '(00)+$', '') FROM source WHERE name = :source"
# One row per subject of the touched handles, and one without identifier for each handle that has nothing in force. Of two
# announcements of one time the later position counts.
_ANNOUNCED = """
CREATE TEMP TABLE announced ON COMMIT DROP AS
SELECT
  CASE WHEN s.subject IS NOT NULL THEN
    keyed_hash('index:' || :source || ':' || :epoch || ':' || split_part(s.subject, ':', 2), :inner, :outer)
  END AS identifier,
  decode(o.document ->> 'certificate_number', 'hex') AS handle, split_part(s.subject, ':', 1) AS role,
  o.document -> 'attributes' ->> 'material' AS material, nullif(left(o.document ->> 'region', 6), '') AS region,
  o.document -> 'attributes' ->> 'state' AS status, (o.document ->> 'valid_from')::date AS valid_from,
  (o.document ->> 'valid_to')::date AS valid_to, o.document -> 'attributes' ->> 'digest' AS digest,
  o.batch, o.file, o."row"
FROM (
    SELECT DISTINCT ON (o.holding) o.* FROM touched AS t JOIN observation AS o USING (holding) WHERE o.source = :source
    ORDER BY o.holding, o.updated_at DESC, (o.document -> 'attributes' ->> 'position')::numeric DESC NULLS LAST, o.digest DESC
  ) AS o
  LEFT JOIN LATERAL string_to_table(
    CASE WHEN coalesce(starts_with(nullif(o.document ->> 'region', ''), :own), true) AND o.document -> 'attributes' ->> 'state' <> 'withdrawn' AND o.document -> 'attributes' ->> 'epoch' = :epoch
      AND o.document -> 'attributes' ->> 'material' <> '' THEN o.document -> 'attributes' ->> 'subjects' END, ' '
  ) AS s (subject) ON s.subject <> ''
WHERE o.document ->> 'certificate_number' ~ '^[0-9a-f]{32}$'
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
_SCOPE = """
INSERT INTO index_scope (source, epoch, material, province, recorded_from)
SELECT DISTINCT s.name, :epoch, a.material, left(coalesce(a.region, s.region), 2), CAST(:now AS timestamptz)
FROM announced AS a JOIN source AS s ON s.name = :source WHERE a.identifier IS NOT NULL
ON CONFLICT DO NOTHING
"""
# The pages may say what they are about: then a partner is the authority on a material of which it has nothing to announce.
_SCOPE_STATED = """
INSERT INTO index_scope (source, epoch, material, province, recorded_from)
SELECT DISTINCT :source, b.cursor ->> 'epoch', m, left(r, 2), CAST(:now AS timestamptz)
FROM batch AS b, jsonb_array_elements_text(b.cursor -> 'materials') AS m, jsonb_array_elements_text(b.cursor -> 'regions') AS r
WHERE b.id = :batch AND starts_with(r, :own) AND b.cursor ->> 'epoch' <> '' AND jsonb_typeof(b.cursor -> 'materials') = 'array' AND jsonb_typeof(b.cursor -> 'regions') = 'array'
ON CONFLICT DO NOTHING
"""
