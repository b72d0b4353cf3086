"""What speaks for an identity, for the person who decides: members, links with their rows, claims, decisions, what is open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa


def show(connection: sa.Connection, key: bytes) -> dict[str, Any]:
    """All about the component of the identifier with this keyed hash; one that nothing names stands alone.

    ``members``: key, scheme, cluster, state, and ``claims`` of birth date and sex with the evidence they come from and the
    ``rows`` that say so.
    ``links``: the two keys, state, ``rows`` (source, file, row) that say so. ``decisions``: who, when, why, which members.
    """
    bind = {"key": key}
    members = [dict(row) for row in connection.execute(sa.text(_MEMBERS), bind).mappings()]
    own = next((row for row in members if row["key"] == key.hex()), None)
    return {
        "key": key.hex(),
        "state": own["state"] if own else "alone",
        "cluster": [row["key"] for row in members if own and row["cluster"] == own["cluster"]] or [key.hex()],
        "members": members,
        "links": [dict(row) for row in connection.execute(sa.text(_LINKS), bind).mappings()],
        "decisions": [dict(row) for row in connection.execute(sa.text(_DECISIONS), bind).mappings()],
    }


def contradictions(connection: sa.Connection, limit: int = 100) -> list[dict[str, Any]]:
    """Components that are not joined because they contradict themselves, of one member or several, each with one to ask
    :func:`show` for."""
    return [dict(row) for row in connection.execute(sa.text(_CONTRADICTIONS), {"limit": limit}).mappings()]


def waiting(connection: sa.Connection, limit: int = 100) -> list[dict[str, Any]]:
    """Links that would undo what a person decided, with the rows that say them."""
    return [dict(row) for row in connection.execute(sa.text(_WAITING), {"limit": limit}).mappings()]


def lines(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """What :func:`show` found as rows of a table: what, state, about, evidence."""
    for member in found["members"]:
        said = [
            " ".join(filter(None, (claim["born_on"], claim["sex"], _places(claim["rows"]))))
            for claim in member["claims"]
        ]
        yield "member", member["state"], f"key:{member['key']} {member['scheme'] or ''}", "; ".join(dict.fromkeys(said))
    for link in found["links"]:
        yield "link", link["state"], f"key:{link['one']} – key:{link['other']}", _places(link["rows"])
    for decision in found["decisions"]:
        about = " | ".join(" ".join(f"key:{key}" for key in side) for side in decision["sides"])
        by = f"{decision['actor']} {decision['decided_at']:%Y-%m-%d %H:%M} {decision['note'] or ''}".strip()
        yield decision["kind"], "ended" if decision["ended"] else "in force", about, by


def _places(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['source']} · {row['file']} · {row['row']}" for row in rows)


_ROWS = """
(SELECT coalesce(jsonb_agg(jsonb_build_object('source', o.source, 'file', f.name, 'row', o."row") ORDER BY o.source, f.name, o."row"), '[]')
 FROM observation AS o JOIN landed_file AS f ON f.id = o.file WHERE o.holding = {evidence}) AS rows"""
_COMPONENT = "SELECT component FROM identity_member WHERE identifier = :key"
_MEMBERS = f"""
SELECT encode(m.identifier, 'hex') AS key, m.scheme, encode(m.cluster, 'hex') AS cluster, m.state,
  (SELECT coalesce(jsonb_agg(c), '[]') FROM (
    SELECT m.born_on, m.sex, 'itself' AS evidence, '[]'::jsonb AS rows WHERE m.born_on IS NOT NULL OR m.sex IS NOT NULL
    UNION ALL
    SELECT nullif(c.born_on, ''), nullif(c.sex, ''), encode(c.evidence, 'hex'), {_ROWS.format(evidence="c.evidence")} FROM identity_claim AS c WHERE c.identifier = m.identifier
  ) AS c) AS claims
FROM identity_member AS m WHERE m.component IN ({_COMPONENT}) ORDER BY m.cluster, m.identifier
"""
_LINKS = f"""
SELECT encode(l.link, 'hex') AS link, encode(l.one, 'hex') AS one, encode(l.other, 'hex') AS other, l.state, {_ROWS.format(evidence="l.link")}
FROM identity_member AS m JOIN identity_link AS l ON l.one = m.identifier
WHERE m.component IN ({_COMPONENT}) ORDER BY l.link
"""
_DECISIONS = f"""
SELECT d.decision, d.kind, bool_or(d.ended_by IS NOT NULL) AS ended, k.actor, k.note, k.decided_at,
  (SELECT jsonb_agg(s.keys ORDER BY s.side) FROM (
    SELECT e.side, jsonb_agg(encode(e.member, 'hex') ORDER BY e.member) AS keys FROM identity_decision AS e
    WHERE e.decision = d.decision AND e.side < 2 GROUP BY e.side) AS s) AS sides
FROM identity_member AS m JOIN identity_decision AS d ON d.member = m.identifier JOIN decision AS k ON k.landed = d.decision
WHERE d.side < 2 AND m.component IN ({_COMPONENT})
GROUP BY d.decision, d.kind, k.actor, k.note, k.decided_at ORDER BY k.decided_at
"""
_CONTRADICTIONS = """
SELECT encode(component, 'hex') AS component, count(*) AS members, min(encode(identifier, 'hex')) AS key,
  array_agg(DISTINCT scheme ORDER BY scheme) AS schemes
FROM identity_member WHERE state = 'contradictory' GROUP BY component ORDER BY component LIMIT :limit
"""
_WAITING = f"""
SELECT encode(l.link, 'hex') AS link, encode(l.one, 'hex') AS one, encode(l.other, 'hex') AS other, {_ROWS.format(evidence="l.link")}
FROM identity_link AS l WHERE l.state = 'waiting' ORDER BY l.link LIMIT :limit
"""
