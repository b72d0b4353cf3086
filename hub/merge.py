"""The merge: one transaction that moves ledger, quarantine, observations, holdings, versions, feed and cursor.

Of the accepted versions of a row the greatest by (time at the source, digest) is its observation; of the observations of
a holding the greatest by (authority of the source, time at the source, digest) is in force. So the order of arrival
does not matter for what is held. The ledger and the quarantine follow the last delivery among versions of one time: what
is open there is what is wrong in it. What a partner hub announces goes the same way up to its observations, and from there
into index entries instead of holdings. All set-based; sources of one material type take turns, others run side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from connectors.errors import FatalError, RetriableError
from hub import copying, index_entries, outcome, staging
from hub.home import KeyedHash
from hub.index_entries import Run
from hub.workspace import Workspace


@dataclass(frozen=True)
class Merged:
    """What the merge did, in rows and holdings."""

    accepted: int
    quarantined: int
    rejected: int
    older: int
    tied: int  # accepted, but another version of the same time is in force
    withdrawn: int
    holdings_changed: int  # or index entries


def merge(
    connection: sa.Connection,
    batch: sa.Row,
    material: str,
    authority: int,
    hashing: KeyedHash,
    agreed: bytes | None = None,
) -> Merged:
    """Merge the gated ``batch`` within the caller's transaction. ``agreed``: of a partner hub's index, the agreed key.

    Raises RetriableError ``batch-overtaken`` when another batch of the source was merged since the diff.
    """
    bind = {
        "batch": batch.id,
        "source": batch.source,
        "contract": batch.contract,
        "as_of": batch.as_of,
        "material": material,
        "authority": authority,
        "inner": hashing.inner,
        "outer": hashing.outer,
        "forced": batch.kind == "release",
    }

    def run(statement: str, **more: object) -> int:
        return connection.execute(sa.text(statement), {**bind, **more}).rowcount

    merges = connection.scalar(sa.text("SELECT merges FROM source WHERE name = :source FOR UPDATE"), bind)
    if batch.kind == "run" and merges != batch.merges_seen:
        raise RetriableError("batch-overtaken", batch=batch.id, source=batch.source)
    connection.execute(sa.text("SET LOCAL work_mem = '256MB'"))
    _copy_outcomes(connection, batch.id)
    run(
        "ALTER TABLE incoming ADD COLUMN holding bytea, ADD COLUMN fate text, ADD COLUMN timed boolean, ADD COLUMN as_of timestamptz"
    )
    # The planner takes a source it has no statistics of for a row or two and starts from there: then only an index keeps
    # it from going through all of the batch for each row of the ledger.
    run("CREATE INDEX ON incoming (row_key)")
    run(_HOLDING_KEYS)
    run(_SAME_VERSION)
    if batch.kind == "run":  # a person's release wins over age
        run(_OLDER)
        run(_COVERED)
    older = connection.scalar(sa.text("SELECT count(*) FROM incoming WHERE fate = 'older'")) or 0
    run(_QUARANTINE_CLOSED)
    run(_QUARANTINE_OPENED)
    run(_LEDGER)
    # From here on rows of one material type can meet in one holding: those merges take turns.
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('yici-holding-' || :material, 0))"), bind)
    run(_TOUCHED)
    run("CREATE INDEX ON touched (holding)")
    run("ANALYZE touched")
    run(_AS_OF_OBSERVATIONS)
    withdrawn = _withdraw(run) if staging.withdraws(batch) else 0
    run(_OBSERVATIONS)
    tied = run(_IN_FORCE_NOTED)
    run(_AS_OF_LEDGER)
    changed = _holdings(connection, run) if agreed is None else index_entries.update(connection, run, batch, agreed)
    counted = sa.text("SELECT verdict, count(*) AS rows FROM incoming WHERE fate IS DISTINCT FROM 'older' GROUP BY 1")
    verdicts = {row.verdict: row.rows for row in connection.execute(counted)}
    run(_SOURCE)
    run("DELETE FROM stage_row WHERE batch = :batch")
    run("DELETE FROM stage_file WHERE batch = :batch")
    run("DROP TABLE incoming, touched")
    return Merged(
        verdicts.get("accepted", 0),
        verdicts.get("quarantined", 0),
        verdicts.get("rejected", 0),
        older,
        tied,
        withdrawn,
        changed,
    )


def _copy_outcomes(connection: sa.Connection, batch: str) -> None:
    connection.execute(sa.text(_INCOMING))
    with copying.into(connection, "incoming", outcome.SCHEMA.names) as copy:
        for table in Workspace(batch).each("mapped"):
            copy.write(table)
    connection.execute(sa.text("ANALYZE incoming"))


def _withdraw(run: Run) -> int:
    """A complete snapshot that lacks a row withdraws it, unless the row was seen in a later one."""
    run(_TOUCHED_BY_ABSENCE)
    count = run(_ABSENT)
    run(_ABSENT_OBSERVATIONS)
    return count


def _holdings(connection: sa.Connection, run: Run) -> int:
    """Bring the touched holdings to the observation in force; versions and feed follow."""
    run(_IN_FORCE)
    run(_HOLDINGS_CHANGED)
    run("CREATE INDEX ON changed (holding)")
    run("ANALYZE changed")
    changed = connection.scalar(sa.text("SELECT count(*) FROM changed")) or 0
    if changed:
        run(_HOLDINGS_GONE)
        run(_HOLDINGS)
        run(_HOLDERS_GONE)
        run(_HOLDERS)
        run(_VERSIONS_CLOSED)
        run(_VERSIONS)
        run(_FEED_HEAD)
        run(_FEED)
    run(_HOLDINGS_COUNTED)
    run("DROP TABLE in_force, changed")
    return changed


def check_state(batch: sa.Row) -> None:
    """Only a batch that passed the gate, or was approved, may be merged."""
    if batch.state not in ("gated", "approved"):
        raise FatalError("batch-state", batch=batch.id, state=batch.state)


_INCOMING = """
CREATE TEMP TABLE incoming (
  ordinal bigint, row_key uuid, original_key uuid, digest uuid, file bigint, "row" bigint, verdict text, reasons text,
  flags text, raw text, updated_at timestamptz, natural_key text, status text, issued_on date, valid_from date,
  valid_to date, region text, document jsonb
) ON COMMIT DROP
"""
# A delivery is as of its own time; the rows of one that says nothing are older than all that does.
_HOLDING_KEYS = """
UPDATE incoming AS i SET
  timed = i.updated_at IS NOT NULL,
  updated_at = coalesce(i.updated_at, d.as_of, 'epoch'),
  as_of = coalesce(d.as_of, i.updated_at, 'epoch'),
  holding = CASE WHEN verdict = 'accepted'
    THEN keyed_hash(:material || chr(31) || natural_key, :inner, :outer) END
FROM (
  SELECT files.file, coalesce(f.as_of, :as_of) AS as_of
  FROM (SELECT DISTINCT file FROM incoming) AS files
    LEFT JOIN stage_file AS f ON f.batch = :batch AND f.file IN (files.file, 0)
) AS d
WHERE d.file = i.file
"""
# The same version mapped again, under another contract or out of an older file, keeps the latest time it was seen.
_SAME_VERSION = """
UPDATE incoming AS i SET updated_at = l.updated_at FROM row_ledger AS l
WHERE l.source = :source AND l.row_key = i.row_key AND l.digest = i.digest
  AND NOT i.timed AND NOT l.timed AND l.updated_at > i.updated_at AND l.verdict <> 'withdrawn'
"""
# A withdrawn row comes back only with a delivery that is no older than the snapshot that lacked it.
_OLDER = """
UPDATE incoming AS i SET fate = 'older' FROM row_ledger AS l
WHERE l.source = :source AND l.row_key = i.row_key
  AND CASE l.verdict WHEN 'withdrawn' THEN l.as_of > i.as_of ELSE l.digest <> i.digest AND l.updated_at > i.updated_at END
"""
# An accepted version older than a bad one, but newer than the last accepted one, still says what is held.
_COVERED = """
UPDATE incoming AS i SET fate = 'behind' FROM row_ledger AS l
WHERE i.fate = 'older' AND i.verdict = 'accepted' AND l.source = :source AND l.row_key = i.row_key
  AND l.verdict IN ('quarantined', 'rejected')
  AND NOT EXISTS (
    SELECT FROM observation AS o WHERE o.source = :source AND o.row_key = i.row_key
      AND (o.updated_at, o.digest) >= (i.updated_at, i.digest))
"""
_QUARANTINE_CLOSED = """
UPDATE quarantine AS q SET state = 'superseded', decided_at = now() FROM incoming AS i
WHERE q.source = :source AND q.state = 'open' AND i.fate IS NULL
  AND (q.row_key = i.row_key OR q.original_key = i.original_key AND i.verdict = 'accepted')
"""
_QUARANTINE_OPENED = """
INSERT INTO quarantine (source, batch, row_key, original_key, digest, verdict, state, reasons, raw, file, "row")
SELECT :source, :batch, row_key, original_key, digest, verdict, CASE verdict WHEN 'quarantined' THEN 'open' ELSE 'rejected' END,
  string_to_array(reasons, ','), decode(raw, 'hex'), file, "row"
FROM incoming WHERE verdict IN ('quarantined', 'rejected') AND fate IS NULL
ON CONFLICT (source, batch, file, "row") DO NOTHING
"""
_LEDGER = """
INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row")
SELECT :source, row_key, digest, :contract, verdict, timed, updated_at, as_of, :batch, file, "row"
FROM incoming WHERE fate IS NULL ORDER BY row_key
ON CONFLICT (source, row_key) DO UPDATE SET
  digest = excluded.digest, contract = excluded.contract, verdict = excluded.verdict,
  in_force = true, timed = excluded.timed, updated_at = excluded.updated_at, as_of = greatest(row_ledger.as_of, excluded.as_of), batch = excluded.batch,
  file = excluded.file, "row" = excluded."row"
"""
# Rows that came again unchanged in a later delivery are as new as that, where they carry no time of their own.
_AGAIN = """
FROM stage_row AS s
  JOIN stage_file AS f ON f.batch = s.batch AND s.chunk BETWEEN f.first_chunk AND f.last_chunk
  JOIN row_ledger AS known ON known.source = :source AND known.row_key = s.row_key AND known.digest = s.digest
    AND known.as_of < f.as_of
"""
_AS_OF_LEDGER = f"""
UPDATE row_ledger AS l SET as_of = f.as_of, updated_at = CASE WHEN l.timed THEN l.updated_at ELSE f.as_of END
{_AGAIN}
WHERE s.batch = :batch AND (s.fate IS NULL OR s.fate = 'conflicting')
  AND l.source = known.source AND l.row_key = known.row_key
"""
_AS_OF_OBSERVATIONS = f"""
UPDATE observation AS o SET updated_at = f.as_of
{_AGAIN}
WHERE s.batch = :batch AND s.fate IS NULL AND NOT known.timed
  AND o.source = :source AND o.row_key = known.row_key AND o.digest = known.digest
"""
_TOUCHED = f"""
CREATE TEMP TABLE touched ON COMMIT DROP AS
SELECT holding FROM incoming WHERE verdict = 'accepted' AND (fate IS NULL OR fate = 'behind')
UNION
SELECT o.holding FROM incoming AS i JOIN observation AS o ON o.source = :source AND o.row_key = i.row_key
WHERE i.verdict = 'accepted' AND (fate IS NULL OR fate = 'behind')
UNION
SELECT o.holding {_AGAIN} JOIN observation AS o ON o.source = :source AND o.row_key = known.row_key
WHERE s.batch = :batch AND s.fate IS NULL AND NOT known.timed
"""
_TOUCHED_BY_ABSENCE = f"""
INSERT INTO touched
SELECT o.holding FROM observation AS o JOIN row_ledger AS l USING (source, row_key)
WHERE o.source = :source AND {staging.UNLISTED}
EXCEPT SELECT holding FROM touched
"""
_ABSENT = f"""
UPDATE row_ledger AS l SET verdict = 'withdrawn', as_of = :as_of, updated_at = :as_of, batch = :batch
WHERE l.source = :source AND l.verdict <> 'withdrawn' AND {staging.UNLISTED}
"""
_ABSENT_OBSERVATIONS = """
DELETE FROM observation AS o USING row_ledger AS l
WHERE o.source = :source AND l.source = o.source AND l.row_key = o.row_key AND l.verdict = 'withdrawn'
"""
_OBSERVATIONS = """
INSERT INTO observation (source, row_key, holding, digest, updated_at, authority, batch, file, "row", document)
SELECT :source, row_key, holding, digest, updated_at, :authority, :batch, file, "row", document
FROM incoming WHERE verdict = 'accepted' AND (fate IS NULL OR fate = 'behind') ORDER BY row_key
ON CONFLICT (source, row_key) DO UPDATE SET
  holding = excluded.holding, digest = excluded.digest, updated_at = excluded.updated_at,
  authority = excluded.authority, batch = excluded.batch, file = excluded.file, "row" = excluded."row",
  document = excluded.document
WHERE :forced OR observation.digest = excluded.digest
  OR (excluded.updated_at, excluded.digest) > (observation.updated_at, observation.digest)
"""
# Of two versions of one time the observation keeps one; the ledger notes that the last delivered is the other.
_IN_FORCE_NOTED = """
UPDATE row_ledger AS l SET in_force = false FROM incoming AS i
WHERE l.source = :source AND l.row_key = i.row_key AND i.fate IS NULL AND i.verdict = 'accepted'
  AND EXISTS (SELECT FROM observation AS o WHERE o.source = :source AND o.row_key = l.row_key AND o.digest <> l.digest)
"""
_IN_FORCE = """
CREATE TEMP TABLE in_force ON COMMIT DROP AS
SELECT DISTINCT ON (o.holding) o.*,
  count(*) OVER (PARTITION BY o.holding) AS observations,
  min(md5((o.document - 'updated_at')::text)) OVER (PARTITION BY o.holding)
    <> max(md5((o.document - 'updated_at')::text)) OVER (PARTITION BY o.holding) AS conflicting
FROM touched JOIN observation AS o USING (holding)
ORDER BY o.holding, o.authority DESC, o.updated_at DESC, o.digest DESC
"""
_HOLDINGS_CHANGED = """
CREATE TEMP TABLE changed ON COMMIT DROP AS
SELECT t.holding, f.holding IS NOT NULL AS present, h.key IS NOT NULL AS known
FROM touched AS t LEFT JOIN in_force AS f USING (holding) LEFT JOIN holding AS h ON h.key = t.holding
WHERE (f.holding IS NOT NULL OR h.key IS NOT NULL)
  AND (f.holding IS NULL OR h.key IS NULL
    OR (f.source, f.row_key, f.digest) IS DISTINCT FROM (h.source, h.row_key, h.digest)
    OR f.document IS DISTINCT FROM h.document)
"""
_HOLDINGS_GONE = "DELETE FROM holding USING changed AS c WHERE key = c.holding AND NOT c.present"
_HOLDINGS = """
INSERT INTO holding (key, material, source, row_key, digest, updated_at, authority, observations, conflicting, status,
  issued_on, valid_from, valid_to, region, document, recorded_at)
SELECT f.holding, :material, f.source, f.row_key, f.digest, f.updated_at, f.authority, f.observations, f.conflicting,
  coalesce(f.document ->> 'status', 'in_force'), (f.document ->> 'issued_on')::date,
  (f.document ->> 'valid_from')::date, (f.document ->> 'valid_to')::date, f.document ->> 'region', f.document, now()
FROM in_force AS f JOIN changed AS c USING (holding) ORDER BY f.holding
ON CONFLICT (key) DO UPDATE SET
  source = excluded.source, row_key = excluded.row_key, digest = excluded.digest, updated_at = excluded.updated_at,
  authority = excluded.authority, observations = excluded.observations, conflicting = excluded.conflicting,
  status = excluded.status, issued_on = excluded.issued_on, valid_from = excluded.valid_from,
  valid_to = excluded.valid_to, region = excluded.region, document = excluded.document,
  recorded_at = excluded.recorded_at
"""
_HOLDINGS_COUNTED = """
UPDATE holding AS h SET observations = f.observations, conflicting = f.conflicting, updated_at = f.updated_at
FROM in_force AS f
WHERE h.key = f.holding AND (h.observations, h.conflicting, h.updated_at)
  IS DISTINCT FROM (f.observations::int, f.conflicting, f.updated_at)
"""
_HOLDERS_GONE = "DELETE FROM holding_holder AS h USING changed AS c WHERE h.holding = c.holding AND c.known"
_HOLDERS = """
INSERT INTO holding_holder (identifier, holding, role)
SELECT DISTINCT keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer), f.holding, h ->> 'role'
FROM in_force AS f JOIN changed AS c USING (holding) CROSS JOIN jsonb_array_elements(f.document -> 'holders') AS h
ON CONFLICT DO NOTHING
"""
_VERSIONS_CLOSED = """
UPDATE holding_version AS v SET recorded_to = now() FROM changed AS c
WHERE v.holding = c.holding AND v.recorded_to IS NULL
"""
_VERSIONS = """
INSERT INTO holding_version (holding, recorded_from, material, digest, source, batch, file, "row", document)
SELECT c.holding, now(), :material, f.digest, f.source, :batch, f.file, f."row", f.document
FROM changed AS c LEFT JOIN in_force AS f USING (holding) ORDER BY c.holding
"""
# The lock on the head is held to commit: positions follow the order of commits and a reader can never miss one. Times
# follow it too, each merge later than the one before, whatever the clock does; the lock comes first, so that the last
# position given out is seen.
_FEED_HEAD = "SELECT position FROM feed_head FOR UPDATE"
_FEED = """
WITH head AS MATERIALIZED (
  SELECT h.position, greatest(clock_timestamp(), f.recorded_at + interval '1 microsecond') AS at
  FROM feed_head AS h LEFT JOIN feed AS f ON f.position = h.position
),
added AS (
  INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
  SELECT head.position + row_number() OVER (ORDER BY c.holding), c.holding, :material,
    CASE WHEN NOT c.present THEN 'withdrawn' WHEN c.known THEN 'changed' ELSE 'added' END, f.digest, :batch, head.at
  FROM changed AS c LEFT JOIN in_force AS f USING (holding) CROSS JOIN head
  RETURNING 1
)
UPDATE feed_head SET position = position + (SELECT count(*) FROM added)
"""
_SOURCE = """
UPDATE source SET
  cursor = coalesce(b.cursor, source.cursor),
  contract = CASE WHEN b.cursor IS NULL THEN source.contract ELSE b.contract END,
  last_success_at = CASE WHEN b.kind = 'run' THEN clock_timestamp() ELSE source.last_success_at END,
  as_of = greatest(source.as_of, b.as_of),
  merges = merges + CASE WHEN b.kind = 'run' THEN 1 ELSE 0 END
FROM batch AS b WHERE b.id = :batch AND source.name = b.source
"""
