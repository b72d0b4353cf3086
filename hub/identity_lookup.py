"""Identity as a lookup about the past sees it: parts of its one statement, and what their results mean.

Everybody who was one subject with somebody asked about counts as asked about. What is so now is read by :mod:`hub.knowledge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# `alike`: those who were linked, with the cluster they were in; one that is contradictory is in a cluster of its own. Out of
# members that were there by then and memberships that ended later. What those asked about were in is called by its smallest
# identifier: whoever is still in it is of one component with that.
ALIKE_THEN = """
theirs AS MATERIALIZED (
  SELECT m.cluster FROM identity_member AS m JOIN identity_change AS c ON c.id = m.change AND c.recorded_at <= :at
  WHERE m.identifier = ANY(ARRAY(SELECT unnest(:identifiers)))
  UNION ALL
  SELECT p.cluster FROM identity_past AS p
  WHERE p.identifier = ANY(ARRAY(SELECT unnest(:identifiers))) AND p.recorded_from <= :at AND p.recorded_to > :at
), alike AS MATERIALIZED (
  SELECT m.identifier, m.cluster, m.state
  FROM identity_member AS m JOIN identity_change AS c ON c.id = m.change AND c.recorded_at <= :at
  WHERE m.component = ANY(ARRAY(
    SELECT component FROM identity_member WHERE identifier = ANY(ARRAY(SELECT cluster FROM theirs))))
  AND m.cluster = ANY(ARRAY(SELECT cluster FROM theirs))
  UNION ALL
  SELECT p.identifier, p.cluster, p.state FROM identity_past AS p
  WHERE p.cluster = ANY(ARRAY(SELECT cluster FROM theirs)) AND p.recorded_from <= :at AND p.recorded_to > :at
)"""
EXPANDED = "ARRAY(SELECT unnest(:identifiers) UNION SELECT identifier FROM alike)"
# Column `people` of the statement: the clusters, and the rows and decisions that make them.
_PEOPLE = """
  (SELECT jsonb_build_object(
    'members', (SELECT coalesce(jsonb_agg(jsonb_build_array(encode(identifier, 'hex'), encode(cluster, 'hex'), state)), '[]') FROM alike),
    'rows', (SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('cluster', encode(a.cluster, 'hex'), 'source', o.source,
        'file', f.name, 'row', o."row")), '[]')
      FROM alike AS a JOIN identity_link AS l ON l.one = a.identifier AND {link}
        JOIN observation AS o ON o.holding = l.link JOIN landed_file AS f ON f.id = o.file WHERE a.state = 'joined'{row}),
    'decisions', (SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('cluster', encode(a.cluster, 'hex'), 'decision', d.decision)), '[]')
      FROM alike AS a JOIN identity_decision AS d ON d.member = a.identifier
      WHERE d.kind = 'merge' AND d.side = 0 AND {decision})
  ) WHERE EXISTS (SELECT FROM alike)) AS people"""
# Decisions that were in force then. Rows that link two who were one then (so the link stood), known then as they are now: of
# those that were withdrawn, or read anew since, the ledger does not say what they said.
_DECIDED_AT = "(SELECT max(k.decided_at) FROM decision AS k WHERE k.source = 'identity' AND k.landed = {landed})"
PEOPLE_THEN = _PEOPLE.format(
    link="EXISTS (SELECT FROM alike AS b WHERE b.identifier = l.other AND b.cluster = a.cluster)",
    row="""
        AND (SELECT k.recorded_at FROM batch AS k WHERE k.id = o.batch) <= :at""",
    decision=f"""{_DECIDED_AT.format(landed="d.decision")} <= :at
        AND (d.ended_by IS NULL OR {_DECIDED_AT.format(landed="d.ended_by")} > :at)""",
)


@dataclass(frozen=True)
class People:
    """Who is one with whom among those asked about.

    ``asked``: keyed hash of an identifier -> those asked about that it is one with. ``undecided``: those asked about who
    stand alone because what links them contradicts itself. ``through``: for each of those asked about who is one with
    others, the rows (source, file, row) and decisions that say so.
    """

    asked: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    undecided: frozenset[bytes] = frozenset()
    through: Mapping[bytes, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def of(self, identifier: bytes) -> tuple[bytes, ...]:
        return self.asked.get(identifier, (identifier,))


def people(holders: Iterable[bytes], found: Mapping[str, Any] | None) -> People:
    """What the column ``people`` of the statement says of ``holders``."""
    if not found:
        return People()
    wanted = frozenset(holders)
    members: dict[str, list[bytes]] = {}
    undecided = set()
    for identifier, cluster, state in found["members"]:
        members.setdefault(cluster, []).append(bytes.fromhex(identifier))
        if state != "joined":
            undecided.add(bytes.fromhex(identifier))
    evidence: dict[str, list[Mapping[str, Any]]] = {}
    for said in (*found["rows"], *found["decisions"]):
        evidence.setdefault(said["cluster"], []).append({name: said[name] for name in said if name != "cluster"})
    asked, through = {}, {}
    for cluster, whole in members.items():
        here = tuple(sorted(wanted.intersection(whole)))
        asked.update(dict.fromkeys(whole, here))
        through.update(dict.fromkeys(here, evidence[cluster]) if cluster in evidence else {})
    return People(asked, frozenset(undecided & wanted), through)
