"""The statements of :mod:`hub.verify`: each gives ``code`` and ``key`` of what is not as the ledger has it.

What is compared with what:

======================  =============================================================================================
``ledger``              each row with itself, with its batch and its file
``batches``             the counts of each merged batch with each other, with the ledger and with the source
``holdings``            with the greatest observation by (authority, time at the source, digest), with how many there
                        are and whether they agree, with what the document says
``documents``           and past versions, whole, with the digest that each was written with
``holders``             with the keyed hashes of the identifiers in the documents in force
``memberships``         of clusters, past and present, with each other: no two of an identifier at one time
``versions``            with each other and with what is in force: no two at one time
``feed``                replayed: each version it tells of with the holding and with past versions, and those with it
``positions``           of the feed, and its times, with each other, with the batches and with the head
``quarantine``          with the ledger, with what its batches counted, and with what people decided
``entries``             of partner hubs with their observations
``identity``            links, claims, components, clusters and their states with what all rows, documents and decisions
                        make of them at once
======================  =============================================================================================
"""

from __future__ import annotations

from hub import verify_feed, verify_quarantine
from hub.standing import KEPT_DIGEST

# Keys of some differences and the number of all, in bounded memory.
SAMPLED = """
SELECT code, count(*) AS found, array_agg(key ORDER BY turn) FILTER (WHERE turn <= {shown}) AS keys
FROM (SELECT code, key, row_number() OVER (PARTITION BY code) AS turn FROM ({statement}) AS d WHERE code IS NOT NULL) AS t
GROUP BY code ORDER BY code
"""
# A row key is a plain hash, of an identifier perhaps: where the row stands says as much to those who may read it.
_PLACE = """l.source || ' file ' || l.file || ' row ' || l."row\""""

_LEDGER = f"""
SELECT CASE
    WHEN b.id IS NULL OR b.state <> 'merged' THEN 'ledger-batch-unmerged'
    WHEN f.id IS NULL THEN 'ledger-file-unknown'
    WHEN l.verdict IN ('withdrawn', 'retracted') AND l.holding IS NOT NULL THEN 'ledger-withdrawn-asserts'
    WHEN l.verdict = 'accepted' AND l.holding IS NULL THEN 'ledger-accepted-silent'
    WHEN l.holding IS NULL AND num_nonnulls(l.authority, l.said_digest, l.said_at, l.mapped) > 0
      OR l.holding IS NOT NULL AND num_nulls(l.authority, l.said_digest, l.said_at, l.mapped) > 0 THEN 'ledger-half-said'
    WHEN l.mapped IS NOT NULL AND (m.source, m.row_key) IS DISTINCT FROM (l.source, l.row_key) THEN 'ledger-unmapped'
    WHEN l.verdict = 'accepted' AND l.in_force IS DISTINCT FROM (l.said_digest = l.digest) THEN 'ledger-other-version'
  END AS code, {_PLACE} AS key
FROM row_ledger AS l LEFT JOIN batch AS b ON b.id = l.batch LEFT JOIN landed_file AS f ON f.id = l.file
  LEFT JOIN mapped_row AS m ON m.holding = l.holding AND m.id = l.mapped
UNION ALL
SELECT 'mapped-unfounded', encode(m.holding, 'hex') FROM mapped_row AS m
WHERE NOT EXISTS (SELECT FROM row_ledger AS l WHERE l.source = m.source AND l.row_key = m.row_key AND l.mapped = m.id)
  AND NOT EXISTS (SELECT FROM mapped_block AS b JOIN batch AS k ON k.id = b.batch
    WHERE b.block = m.id >> 20 AND k.state <> 'merged')
"""
_BATCHES = """
SELECT 'batch-not-conserved' AS code, id AS key FROM batch
WHERE state = 'merged' AND fetched <> unchanged + accepted + quarantined + rejected
UNION ALL
SELECT 'batch-ledger-more', b.id FROM batch AS b JOIN (
    SELECT batch, count(*) FILTER (WHERE verdict <> 'withdrawn') AS present, count(*) FILTER (WHERE verdict = 'withdrawn') AS gone
    FROM row_ledger GROUP BY batch
  ) AS l ON l.batch = b.id
WHERE l.present > b.accepted + b.quarantined + b.rejected OR l.gone > b.withdrawn
UNION ALL
SELECT 'source-merges-fewer', s.name FROM source AS s
WHERE s.merges < (SELECT count(*) FROM batch AS b WHERE b.source = s.name AND b.state = 'merged' AND b.kind <> 'release')
"""
# One sort by holding serves both the choice and the counts.
_HOLDINGS = """
WITH due AS (
  SELECT DISTINCT ON (o.holding) o.*, count(*) OVER said AS observations,
    min(o.said) OVER said <> max(o.said) OVER said AS conflicting
  FROM (
    SELECT o.*, s.entity, md5((o.document - 'updated_at')::text) AS said
    FROM observation AS o JOIN source AS s ON s.name = o.source AND s.entity = ANY (:certificates)
  ) AS o
  WINDOW said AS (PARTITION BY o.holding)
  ORDER BY o.holding, o.authority DESC, o.updated_at DESC, o.digest DESC, o.source, o.row_key
)
SELECT CASE
    WHEN h.key IS NULL THEN 'holding-missing'
    WHEN d.holding IS NULL THEN 'holding-unfounded'
    WHEN (h.authority, h.updated_at, h.digest) IS DISTINCT FROM (d.authority, d.updated_at, d.digest) OR h.material <> d.entity
      OR NOT EXISTS (SELECT FROM row_ledger AS l WHERE l.source = h.source AND l.row_key = h.row_key AND l.holding = h.key
        AND l.said_digest = h.digest AND l.mapped = h.mapped) THEN 'holding-not-in-force'
    WHEN h.observations <> d.observations THEN 'holding-miscounted'
    WHEN h.conflicting <> d.conflicting THEN 'holding-conflict-unseen'
    WHEN (h.status, h.issued_on, h.valid_from, h.valid_to, h.region) IS DISTINCT FROM (
      coalesce(d.document ->> 'status', 'in_force'), (d.document ->> 'issued_on')::date, (d.document ->> 'valid_from')::date,
      (d.document ->> 'valid_to')::date, d.document ->> 'region') AND (h.source, h.row_key) = (d.source, d.row_key)
      THEN 'holding-differs-from-document'
    WHEN b.id IS NULL OR b.state <> 'merged' OR b.recorded_at IS NULL THEN 'holding-batch-unmerged'
  END AS code, encode(coalesce(h.key, d.holding), 'hex') AS key
FROM due AS d FULL JOIN holding AS h ON h.key = d.holding LEFT JOIN batch AS b ON b.id = h.batch
"""
_HOLDERS = """
WITH due AS (
  SELECT DISTINCT keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), :inner, :outer) AS identifier, h.key AS holding,
    s ->> 'role' AS role
  FROM holding AS h JOIN mapped_row AS l ON l.holding = h.key AND l.id = h.mapped
    CROSS JOIN LATERAL json_array_elements(l.document::json -> 'holders') AS s
  WHERE s ->> 'value' IS NOT NULL
)
SELECT CASE WHEN k.holding IS NULL THEN 'holder-missing' ELSE 'holder-unfounded' END AS code,
  encode(coalesce(k.holding, d.holding), 'hex') AS key
FROM due AS d FULL JOIN holding_holder AS k ON k.identifier = d.identifier AND k.holding = d.holding AND k.role = d.role
WHERE d.holding IS NULL OR k.holding IS NULL
"""
_DOCUMENTS = f"""
SELECT 'document-altered' AS code, encode(holding, 'hex') AS key FROM mapped_row
WHERE document_digest IS DISTINCT FROM md5(document)::uuid
UNION ALL
SELECT 'version-altered', encode(holding, 'hex') FROM holding_past WHERE kept_digest IS DISTINCT FROM {KEPT_DIGEST}
"""
_VERSIONS = """
SELECT CASE
    WHEN recorded_to <= recorded_from THEN 'version-without-time'
    WHEN following < recorded_to OR recorded_to IS NULL AND following IS NOT NULL THEN 'version-overlapping'
  END AS code, encode(holding, 'hex') AS key
FROM (
  SELECT holding, recorded_from, recorded_to, lead(recorded_from) OVER (
    PARTITION BY holding ORDER BY recorded_from, recorded_to NULLS LAST) AS following
  FROM (
    SELECT holding, recorded_from, recorded_to FROM holding_past
    UNION ALL SELECT h.key, b.recorded_at, NULL FROM holding AS h JOIN batch AS b ON b.id = h.batch
  ) AS known
) AS placed
"""
_MEMBERSHIPS = """
SELECT CASE
    WHEN recorded_from IS NULL OR recorded_to IS NULL AND recorded_from > greatest(now(), (SELECT recorded_at FROM feed_head))
      THEN 'membership-untimed'
    WHEN recorded_to <= recorded_from THEN 'membership-without-time'
    WHEN following < recorded_to OR recorded_to IS NULL AND following IS NOT NULL THEN 'membership-overlapping'
    WHEN recorded_to IS NOT NULL AND NOT (recorded_from IN (SELECT recorded_at FROM identity_change)
      AND recorded_to IN (SELECT recorded_at FROM identity_change)) THEN 'membership-untimed'
  END AS code, encode(identifier, 'hex') AS key
FROM (
  SELECT identifier, recorded_from, recorded_to, lead(recorded_from) OVER (
    PARTITION BY identifier ORDER BY recorded_from, recorded_to NULLS LAST) AS following
  FROM identity_membership
) AS placed
"""


def _entries(said: str = "", kept: str = "") -> str:
    """What counts of an announcement: hub/index_entries.py. The join is by the key of an entry, the rest is compared.
    ``said``, ``kept``: conditions on what was announced and on the entries there are."""
    return f"""
WITH last AS (
  SELECT DISTINCT ON (o.source, o.holding) o.source, o.holding, o.document, o.document -> 'attributes' AS said, e.epoch,
    nullif(left(o.document ->> 'region', 6), '') AS region, regexp_replace(s.region, '(00)+$', '') AS own
  FROM observation AS o JOIN source AS s ON s.name = o.source
    JOIN (SELECT source, max(epoch COLLATE "C") AS epoch FROM index_key GROUP BY source) AS e ON e.source = o.source
  {said}
  ORDER BY o.source, o.holding, o.updated_at DESC, (o.document -> 'attributes' ->> 'position')::numeric DESC NULLS LAST, o.digest DESC
), due AS (
  SELECT DISTINCT source, holding, decode(document ->> 'certificate_number', 'hex') AS handle, split_part(subject, ':', 1) AS role,
    keyed_hash('index:' || source || ':' || epoch || ':' || split_part(subject, ':', 2), :inner, :outer) AS identifier,
    (said ->> 'material', region, said ->> 'state', document ->> 'valid_from', document ->> 'valid_to', said ->> 'digest',
      epoch)::text AS rest
  FROM last CROSS JOIN LATERAL string_to_table(said ->> 'subjects', ' ') AS subject
  WHERE subject <> '' AND said ->> 'state' <> 'withdrawn' AND said ->> 'epoch' = epoch AND said ->> 'material' <> ''
    AND coalesce(starts_with(region, own), true) AND document ->> 'certificate_number' ~ '^[0-9a-f]{{32}}$'
), kept AS (
  SELECT source, handle, role, identifier,
    (material, region, status, valid_from, valid_to, digest, epoch)::text AS rest
  FROM index_entry WHERE recorded_to IS NULL {kept}
)
SELECT CASE WHEN k.handle IS NULL THEN 'entry-missing' WHEN d.rest IS DISTINCT FROM k.rest THEN 'entry-unfounded' END AS code,
  encode(coalesce(k.handle, d.handle), 'hex') AS key, d.holding
FROM due AS d FULL JOIN kept AS k
  ON k.source = d.source AND k.handle = d.handle AND k.role = d.role AND k.identifier = d.identifier
"""


# Of one source, with the holding under which what was announced is kept.
ENTRIES_OF = _entries("WHERE o.source = :source", "AND source = :source")
# With what hub/verify_identity.py made anew.
_IDENTITY = """
SELECT CASE WHEN d.link IS NULL THEN 'identity-link-unfounded' WHEN k.link IS NULL THEN 'identity-link-missing'
    WHEN k.state <> d.state THEN 'identity-link-state' END AS code, encode(coalesce(k.link, d.link), 'hex') AS key
FROM due_identity_link AS d FULL JOIN identity_link AS k USING (link, one, other)
UNION ALL
SELECT CASE WHEN d.evidence IS NULL THEN 'identity-claim-unfounded' WHEN k.evidence IS NULL THEN 'identity-claim-missing' END,
  encode(coalesce(k.evidence, d.evidence), 'hex')
FROM due_identity_claim AS d FULL JOIN identity_claim AS k USING (identifier, evidence, born_on, sex)
UNION ALL
SELECT 'identity-differs', encode(identifier, 'hex') FROM due_identity_member AS d FULL JOIN identity_member AS k USING (identifier)
WHERE (d.scheme, d.born_on, d.sex, d.component, d.cluster, d.state) IS DISTINCT FROM
  (k.scheme, k.born_on, k.sex, k.component, k.cluster, k.state)
UNION ALL
SELECT DISTINCT 'identity-decision-unknown', decision FROM identity_decision AS d
WHERE NOT EXISTS (SELECT FROM decision AS l WHERE l.landed = d.decision)
  OR d.ended_by IS NOT NULL AND NOT EXISTS (SELECT FROM decision AS l WHERE l.landed = d.ended_by)
"""
CHECKS = {
    "ledger": _LEDGER,
    "batches": _BATCHES,
    "holdings": _HOLDINGS,
    "documents": _DOCUMENTS,
    "holders": _HOLDERS,
    "versions": _VERSIONS,
    "feed": verify_feed.FEED,
    "positions": verify_feed.POSITIONS,
    "quarantine": verify_quarantine.statement(_PLACE),
    "entries": _entries(),
    "identity": _IDENTITY,
    "memberships": _MEMBERSHIPS,
}
