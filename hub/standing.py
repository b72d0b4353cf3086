"""What is in force of the holdings that a merge touched: the maximum over their observations; versions, holders and feed follow.

All in SQL over the temporary tables ``touched`` (before), ``before`` (what was in force), ``in_force`` and ``changed``.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from hub import joining
from hub.incoming import Run
from hub.joining import Join

# Of a version that ended, all of it: nothing else in the store repeats what it was. Independent of a session's settings.
KEPT_DIGEST = """md5(concat_ws('|', encode(holding, 'hex'), extract(epoch FROM recorded_from), extract(epoch FROM recorded_to), material,
    digest, source, row_key, batch, file, "row", array_to_string(ARRAY(SELECT encode(i, 'hex') FROM unnest(identifiers) AS i), ' '),
    document::text))::uuid"""
# Of a document without its time: observations that differ in it conflict.
CONTENT = "md5((m.document::jsonb - 'updated_at')::text)"


def remember(connection: sa.Connection, run: Run) -> None:
    """Keep what is in force of the touched holdings; called before the ledger moves."""
    with joining.joined(connection, joining.count(connection, "touched"), "holding") as join:
        run(_before(join))
    run("ANALYZE before")


def update(connection: sa.Connection, run: Run) -> int:
    """Bring the touched holdings to the observation in force; returns how many changed. ``changed (holding, present, known,
    fresh, denies)`` is left for those who follow."""
    with joining.joined(connection, joining.count(connection, "touched"), "mapped_row") as join:
        run(_in_force(join))
    run("CREATE INDEX ON in_force (holding)")
    run("ANALYZE in_force")
    run(_CHANGED)
    run("CREATE INDEX ON changed (holding)")
    run("ANALYZE changed")
    changed = connection.scalar(sa.text("SELECT count(*) FROM changed")) or 0
    run(_ENDED)
    run("ANALYZE ended")
    with joining.looked_up(connection, joining.count(connection, "touched"), "holding"):
        if changed:
            run(_GONE)
            run(_HOLDINGS)
            run(_HOLDERS_GONE)
            run(_HOLDERS)
        run(_COUNTED)
    return changed


def feed(run: Run, position: int, recorded_at: dt.datetime) -> int:
    """Announce what changed from ``position`` on; returns how many."""
    return run(_FEED, position=position, recorded_at=recorded_at)


def close(run: Run, recorded_at: dt.datetime) -> None:
    """Keep the versions that ended."""
    run(_PAST, recorded_at=recorded_at)


def _before(join: Join) -> str:
    return f"""
CREATE TEMP TABLE before ON COMMIT DROP AS
SELECT h.key AS holding, h.source, h.row_key, h.digest, h.batch, m.file, m."row", {CONTENT} AS content, m.document::jsonb AS document
FROM touched AS t {join("holding", "h", "h.key = t.holding")}
  {join("mapped_row", "m", "m.holding = h.key AND m.id = h.mapped")}
"""


def _in_force(join: Join) -> str:
    of_row = "l.source = m.source AND l.row_key = m.row_key AND l.holding = m.holding AND l.mapped = m.id"
    return f"""
CREATE TEMP TABLE in_force ON COMMIT DROP AS
SELECT DISTINCT ON (holding) *, count(*) OVER (PARTITION BY holding) AS observations,
  min(content) OVER (PARTITION BY holding) <> max(content) OVER (PARTITION BY holding) AS conflicting
FROM (
  SELECT l.holding, l.source, l.row_key, l.said_digest, l.said_at, l.authority, l.mapped, {CONTENT} AS content,
    m.document::json AS document
  FROM touched AS t {join("mapped_row", "m", "m.holding = t.holding")} {join("row_ledger", "l", of_row)}
) AS o
ORDER BY holding, authority DESC, said_at DESC, said_digest DESC, source, row_key
"""


_CHANGED = """
CREATE TEMP TABLE changed ON COMMIT DROP AS
SELECT t.holding, f.holding IS NOT NULL AS present, b.holding IS NOT NULL AS known, false AS fresh,
  cast(NULL AS boolean) AS denies
FROM touched AS t LEFT JOIN in_force AS f USING (holding) LEFT JOIN before AS b USING (holding)
WHERE (f.holding IS NOT NULL OR b.holding IS NOT NULL)
  AND (f.holding IS NULL OR b.holding IS NULL
    OR (f.source, f.row_key, f.said_digest, f.content) IS DISTINCT FROM (b.source, b.row_key, b.digest, b.content))
"""
_ENDED = """
CREATE TEMP TABLE ended ON COMMIT DROP AS
SELECT b.*, coalesce((
  SELECT array_agg(DISTINCT keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), :inner, :outer))
  FROM jsonb_array_elements(b.document -> 'holders') AS s), '{}') AS identifiers
FROM before AS b JOIN changed AS c USING (holding)
"""
_GONE = "DELETE FROM holding AS h USING changed AS c WHERE h.key = c.holding AND NOT c.present"
_HOLDINGS = """
INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting, status,
  issued_on, valid_from, valid_to, region, batch)
SELECT f.holding, f.mapped, :material, f.source, f.row_key, f.said_digest, f.said_at, f.authority, f.observations, f.conflicting,
  coalesce(f.document ->> 'status', 'in_force'), (f.document ->> 'issued_on')::date,
  (f.document ->> 'valid_from')::date, (f.document ->> 'valid_to')::date, f.document ->> 'region', :batch
FROM in_force AS f JOIN changed AS c USING (holding) ORDER BY f.holding
ON CONFLICT (key) DO UPDATE SET
  mapped = excluded.mapped, source = excluded.source, row_key = excluded.row_key, digest = excluded.digest, updated_at = excluded.updated_at,
  authority = excluded.authority, observations = excluded.observations, conflicting = excluded.conflicting,
  status = excluded.status, issued_on = excluded.issued_on, valid_from = excluded.valid_from,
  valid_to = excluded.valid_to, region = excluded.region, batch = excluded.batch
"""
_COUNTED = """
UPDATE holding AS h SET observations = f.observations, conflicting = f.conflicting, updated_at = f.said_at, mapped = f.mapped
FROM in_force AS f
WHERE h.key = f.holding AND (h.observations, h.conflicting, h.updated_at, h.mapped)
  IS DISTINCT FROM (f.observations::int, f.conflicting, f.said_at, f.mapped)
"""
_HOLDERS_GONE = """
DELETE FROM holding_holder AS h USING (SELECT holding, unnest(identifiers) AS identifier FROM ended) AS e
WHERE h.identifier = e.identifier AND h.holding = e.holding
"""
_HOLDERS = """
INSERT INTO holding_holder (identifier, holding, role)
SELECT DISTINCT keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), :inner, :outer) AS identifier, f.holding, s ->> 'role'
FROM in_force AS f JOIN changed AS c USING (holding) CROSS JOIN json_array_elements(f.document -> 'holders') AS s
ORDER BY identifier
ON CONFLICT DO NOTHING
"""
_FEED = """
INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
SELECT :position + row_number() OVER (ORDER BY c.holding), c.holding, :material,
  CASE WHEN NOT c.present THEN 'withdrawn' WHEN c.known THEN 'changed' ELSE 'added' END, f.said_digest, :batch, :recorded_at
FROM changed AS c LEFT JOIN in_force AS f USING (holding) WHERE NOT c.fresh
"""
_PAST = f"""
INSERT INTO holding_past (holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row",
  identifiers, document, kept_digest)
SELECT p.*, {KEPT_DIGEST} FROM (
  SELECT e.holding, coalesce(b.recorded_at, 'epoch') AS recorded_from, CAST(:recorded_at AS timestamptz) AS recorded_to,
    CAST(:material AS text) AS material, e.digest, e.source, e.row_key, e.batch, e.file, e."row", e.identifiers, e.document
  FROM ended AS e LEFT JOIN batch AS b ON b.id = e.batch) AS p
"""
