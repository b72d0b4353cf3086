"""Is the quarantine what batches, ledger and decisions make of it? Statements of :mod:`hub.verify_sql`.

Every entry that a merge made stays: so a batch has as many as it counted, with the reasons that it counted. What the ledger
keeps back has an open entry, or one that a decision closed; of versions that contradict each other, which lie under keys of their
own (:mod:`hub.repeats`), also one that was settled: by what the row says since, or by the release of another. Only the end of an
agreement takes entries away (``forget``).
"""

from __future__ import annotations

# The decisions that a quarantine entry ``q`` can show, by whom.
_DECIDED = """EXISTS (SELECT FROM decision AS d WHERE d.source = q.source AND d.row_key = q.original_key AND d.digest = q.digest
        AND d.batch = q.batch AND d.actor = q.decided_by AND d.kind IN ({kinds}))"""
_STATE = f"""CASE q.state
      WHEN 'open' THEN q.verdict = 'quarantined' AND num_nonnulls(q.decided_at, q.decided_by) = 0
      WHEN 'superseded' THEN q.verdict = 'quarantined' AND q.decided_by IS NULL
      WHEN 'released' THEN q.verdict IN ('quarantined', 'rejected') AND q.decided_at IS NOT NULL AND {_DECIDED.format(kinds="'release', 'attach'")}
      WHEN 'rejected' THEN CASE WHEN q.verdict = 'rejected' THEN num_nonnulls(q.decided_at, q.decided_by) = 0
        ELSE q.verdict = 'quarantined' AND q.decided_at IS NOT NULL AND {_DECIDED.format(kinds="'reject'")} END
      ELSE false END"""
_FORGOTTEN = """EXISTS (SELECT FROM decision AS d WHERE d.kind = 'forget' AND d.source = b.source AND d.decided_at >= b.started_at)"""


def statement(place: str) -> str:
    """``place``: SQL that says where a row of the ledger ``l`` stands."""
    return f"""
SELECT CASE
    WHEN b.id IS NULL OR b.state <> 'merged' OR f.id IS NULL THEN 'quarantine-unfounded'
    WHEN q.row_key NOT IN (q.original_key, md5(q.original_key::text || q.digest::text)::uuid) THEN 'quarantine-other-key'
    WHEN l.row_key IS NULL OR q.state = 'open' AND (l.verdict, l.digest, l.batch, l.file, l."row") IS DISTINCT FROM
      ('quarantined', q.digest, q.batch, q.file, q."row") THEN 'quarantine-not-in-ledger'
    WHEN NOT {_STATE} THEN 'quarantine-undecided'
  END AS code, q.id::text AS key
FROM quarantine AS q LEFT JOIN batch AS b ON b.id = q.batch AND b.source = q.source LEFT JOIN landed_file AS f ON f.id = q.file
  LEFT JOIN row_ledger AS l ON l.source = q.source AND l.row_key = q.row_key
UNION ALL
SELECT 'quarantine-missing', {place} FROM row_ledger AS l
WHERE l.verdict IN ('quarantined', 'rejected') AND NOT EXISTS (
  SELECT FROM quarantine AS q WHERE q.source = l.source AND q.row_key = l.row_key AND q.digest = l.digest AND (
    q.state = CASE l.verdict WHEN 'rejected' THEN 'rejected' ELSE 'open' END OR q.row_key <> q.original_key AND (
      q.state = 'released' OR q.state = 'superseded' AND EXISTS (
        SELECT FROM row_ledger AS o WHERE o.source = q.source AND o.row_key = q.original_key))))
UNION ALL
SELECT 'quarantine-other-count', b.id FROM batch AS b LEFT JOIN (
    SELECT batch, count(*) FILTER (WHERE verdict = 'quarantined') AS quarantined, count(*) FILTER (WHERE verdict = 'rejected') AS rejected
    FROM quarantine GROUP BY batch
  ) AS q ON q.batch = b.id
WHERE b.state = 'merged' AND (b.quarantined, b.rejected) IS DISTINCT FROM (coalesce(q.quarantined, 0), coalesce(q.rejected, 0))
  AND NOT {_FORGOTTEN}
UNION ALL
SELECT DISTINCT 'quarantine-other-reasons', b.id
FROM (SELECT batch, reason, count(*) AS rows FROM quarantine, unnest(reasons) AS reason GROUP BY 1, 2) AS q
  FULL JOIN (
    SELECT id AS batch, r.key AS reason, r.value::bigint AS rows FROM batch, jsonb_each_text(reasons) AS r
    WHERE state = 'merged' AND r.key NOT IN ('repeated', 'older')
  ) AS s ON s.batch = q.batch AND s.reason = q.reason
  JOIN batch AS b ON b.id = coalesce(q.batch, s.batch)
WHERE q.rows IS DISTINCT FROM s.rows AND NOT (b.reasons ? 'older' AND coalesce(q.rows, 0) < coalesce(s.rows, 0))
  AND NOT {_FORGOTTEN}
"""
