"""Do feed and past versions tell the same story? Statements of :mod:`hub.verify_sql`.

Each entry of the feed but a withdrawal begins a version, under its batch, and the next entry on the holding ends it, at the moment
at which that one's batch became known: so each version that ended is told of, and what was told of is there. Whole months of
both may have been dropped (:mod:`hub.retention`), or left out of a checkpoint: what was before that need not be there, but of
what is still held the last entry stays.
"""

from __future__ import annotations

_DAY = "CASE WHEN value ~ '^\\d{4}-\\d{2}-\\d{2}$' THEN value::timestamp AT TIME ZONE 'UTC' ELSE 'infinity' END"
# Since when the feed, and since when past versions are whole; '-infinity' where nothing was dropped.
_KEPT = f"""kept AS (
  SELECT coalesce(max({_DAY}) FILTER (WHERE name = 'feed-since'), '-infinity') AS feed,
    greatest(max({_DAY}) FILTER (WHERE name = 'holding_past-since'),
      max(value::timestamptz) FILTER (WHERE name = 'history-begins'), '-infinity') AS history
  FROM setting WHERE name IN ('feed-since', 'holding_past-since', 'history-begins')
)"""
FEED = f"""
WITH {_KEPT}, told AS (
  SELECT f.position, f.holding, f.material, f.change, f.digest, f.batch, b.recorded_at AS known_at, lag(f.change) OVER places AS before,
    lag(f.material) OVER places AS before_material, lead(b.recorded_at) OVER places AS ended_at,
    lead(f.position) OVER places IS NULL AS last
  FROM feed AS f LEFT JOIN batch AS b ON b.id = f.batch AND b.state = 'merged'
  WINDOW places AS (PARTITION BY f.holding ORDER BY f.position)
), version AS (
  SELECT holding, batch, material, digest, recorded_from, recorded_to FROM holding_past
  UNION ALL SELECT h.key, h.batch, h.material, h.digest, b.recorded_at, NULL FROM holding AS h LEFT JOIN batch AS b ON b.id = h.batch
)
SELECT CASE
    WHEN last AND change = 'withdrawn' AND EXISTS (SELECT FROM holding AS h WHERE h.key = holding) THEN 'feed-says-withdrawn'
    WHEN known_at IS NULL THEN 'feed-batch-unmerged'
    WHEN before IS NULL AND change <> 'added' AND kept.feed = '-infinity' OR (before = 'withdrawn') <> (change = 'added')
      OR before_material <> material OR change NOT IN ('added', 'changed', 'withdrawn') THEN 'feed-out-of-turn'
    WHEN before IS NULL AND change <> 'added' AND known_at >= kept.history AND NOT EXISTS (
      SELECT FROM holding_past AS p WHERE p.holding = told.holding AND p.recorded_to = known_at) THEN 'version-missing'
    WHEN (digest IS NULL) <> (change = 'withdrawn') THEN 'feed-other-version'
  END AS code, encode(holding, 'hex') AS key
FROM told CROSS JOIN kept
UNION ALL
SELECT CASE
    WHEN v.holding IS NULL AND t.ended_at IS NULL THEN 'feed-says-present'
    WHEN v.holding IS NULL AND t.ended_at >= kept.history THEN 'version-missing'
    WHEN t.holding IS NULL AND v.recorded_to IS NULL THEN 'feed-silent'
    -- An entry is a little older than the moment at which its batch became known.
    WHEN t.holding IS NULL AND v.recorded_from >= kept.feed + interval '1 day' THEN 'version-untold'
    WHEN (t.digest, t.material) <> (v.digest, v.material) THEN 'feed-other-version'
    WHEN t.holding = v.holding AND (v.recorded_from, v.recorded_to) IS DISTINCT FROM (t.known_at, t.ended_at) THEN 'version-other-time'
  END, encode(coalesce(v.holding, t.holding), 'hex')
FROM (SELECT * FROM told WHERE change <> 'withdrawn') AS t FULL JOIN version AS v ON v.holding = t.holding AND v.batch = t.batch
  CROSS JOIN kept
"""
POSITIONS = f"""
WITH {_KEPT}
SELECT CASE
    WHEN position <> before + 1 OR before IS NULL AND position <> 1 AND kept.feed = '-infinity' THEN 'feed-gap'
    WHEN recorded_at < earlier OR recorded_at > known_at OR batch <> before_batch AND recorded_at <= before_known THEN 'feed-time-falls'
  END AS code, position::text AS key
FROM (
  SELECT f.position, f.recorded_at, f.batch, b.recorded_at AS known_at, lag(f.position) OVER places AS before,
    lag(f.recorded_at) OVER places AS earlier, lag(f.batch) OVER places AS before_batch, lag(b.recorded_at) OVER places AS before_known
  FROM feed AS f LEFT JOIN batch AS b ON b.id = f.batch WHERE f.recorded_at >= (SELECT feed FROM kept)
  WINDOW places AS (ORDER BY f.position)
) AS placed CROSS JOIN kept
UNION ALL
SELECT 'feed-head-missing', 'feed_head' WHERE NOT EXISTS (SELECT FROM feed_head)
UNION ALL
SELECT 'feed-head-differs', h.position::text
FROM feed_head AS h CROSS JOIN kept CROSS JOIN (
    SELECT max(f.position) FILTER (WHERE f.recorded_at >= kept.feed) AS last, coalesce(max(f.position), 0) AS any_
    FROM feed AS f CROSS JOIN kept
  ) AS f CROSS JOIN (
    SELECT greatest((SELECT max(recorded_at) FROM batch WHERE state = 'merged'), (SELECT max(recorded_at) FROM identity_change)) AS at
  ) AS known
WHERE CASE WHEN f.last IS NULL AND kept.feed > '-infinity' THEN h.position < f.any_ ELSE h.position <> coalesce(f.last, 0) END
  OR h.recorded_at < known.at
UNION ALL
SELECT 'since-untrue', s.name FROM setting AS s CROSS JOIN kept
WHERE s.name IN ('feed-since', 'holding_past-since', 'identity_past-since') AND ({_DAY.replace("value", "s.value")} > now()
  OR s.name = 'holding_past-since' AND EXISTS (SELECT FROM holding_past WHERE recorded_to < {_DAY.replace("value", "s.value")})
  OR s.name = 'identity_past-since' AND EXISTS (SELECT FROM identity_past WHERE recorded_to < {_DAY.replace("value", "s.value")})
  OR s.name = 'feed-since' AND EXISTS (
    SELECT FROM feed WHERE recorded_at < kept.feed GROUP BY holding HAVING count(*) > 1 OR bool_or(change = 'withdrawn')))
"""
