"""The review queue: rows that may be about somebody known, with candidates and why each is one.

:func:`listed` says nothing about anybody; only :func:`shown` does, of one row, to the person who decides.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import home, identity_claims, matching_model, matching_subjects
from hub.matching_kernel import SAID
from hub.matching_model import COMPARISONS


def listed(
    connection: sa.Connection, *, source: str | None = None, state: str | None = "waiting", limit: int = 100
) -> list[dict[str, Any]]:
    """Rows in the queue, the likeliest first, without names and numbers: entry, role, where the row stands, how many
    candidates, the best one's weight, probability and levels."""
    found = connection.execute(sa.text(_LISTED), {"source": source, "state": state, "limit": limit}).mappings()
    names = [one.name for one in COMPARISONS]
    return [
        {**dict(row), "levels": dict(zip(names, row["levels"], strict=True)) if row["levels"] else {}} for row in found
    ]


def agreement(levels: dict[str, str], language: str) -> str:
    """The comparisons that agree, in words."""
    told = [
        ": ".join(matching_model.words(name, level, language))
        for name, level in levels.items()
        if level not in (matching_model.MISSING, "different")
    ]
    return "；".join(told) if language == "zh" else "; ".join(told)


def shown(connection: sa.Connection, entry: int, role: str | None = None) -> list[dict[str, Any]]:
    """One row, for each role in question: what it says, and each candidate with what is known and how far they agree
    (personal data). UsageError ``match-unknown``."""
    roles = connection.execute(sa.text(_ROLES), {"entry": entry, "role": role}).all()
    if not roles:
        raise UsageError("match-unknown", entry=entry)
    records = matching_subjects.records(connection, roles[0].source, [entry])
    return [_role(connection, one, records) for one in roles]


def candidate(connection: sa.Connection, entry: int, role: str, rank: int) -> sa.Row | None:
    """A candidate with its identifier (``scheme``, ``value``), as far as its holding still says it."""
    bind = {"entry": entry, "role": role, "rank": rank, **_keys(), **identity_claims.claiming()}
    return connection.execute(sa.text(_CANDIDATES.format(rank="AND c.rank = :rank")), bind).first()


def _role(connection: sa.Connection, one: sa.Row, records: pa.Table) -> dict[str, Any]:
    said: dict[str, Any] = next((row for row in records.to_pylist() if row["role"] == one.role), {})
    bind = {"entry": one.entry, "role": one.role, **_keys(), **identity_claims.claiming()}
    found = connection.execute(sa.text(_CANDIDATES.format(rank="")), bind)
    return {
        "entry": one.entry,
        "role": one.role,
        "state": one.state,
        "source": one.source,
        "file": one.file,
        "row": one.row,
        "reasons": list(one.reasons),
        "says": {name: said.get(name) for name in SAID},
        "candidates_more": one.candidates_more,
        "crowded": one.crowded,
        "candidates": [_told(row) for row in found],
    }


def _told(row: sa.Row) -> dict[str, Any]:
    own = identity_claims.form(row.scheme or "", row.value or "")
    said = {
        "name": row.name, "born": row.born or own["born_on"], "sex": row.sex or own["sex"], "region": row.region, "address": row.address,
        "number": row.value,
    }  # fmt: skip
    return {
        "candidate": row.rank,
        "weight": row.weight,
        "probability": row.probability,
        "scheme": row.scheme,
        "says": said,
        "holding": row.holding.hex(),
        "material": row.material,
        "source": row.said_source,
        "row": row.said_row,
        "agreement": {
            one.name: {"level": level, "weight": weight}
            for one, level, weight in zip(COMPARISONS, row.levels, row.weights, strict=True)
        },
    }


def _keys() -> dict[str, bytes]:
    hashing = home.keyed_hash()
    return {"inner": hashing.inner, "outer": hashing.outer}


# A row that came again, passed or was decided on elsewhere waits no more.
_OPEN = "q.state IN ('open', 'rejected') AND q.decided_at IS NULL"
_LISTED = f"""
SELECT m.entry, m.role, q.source, f.name AS file, q."row", m.state, m.candidates, m.candidates_more,
  jsonb_array_length(m.crowded) AS crowded, c.weight, c.probability, c.levels
FROM match_record AS m JOIN quarantine AS q ON q.id = m.entry JOIN landed_file AS f ON f.id = q.file
  LEFT JOIN match_candidate AS c ON c.entry = m.entry AND c.role = m.role AND c.rank = 1
WHERE (cast(:source AS text) IS NULL OR q.source = :source)
  AND (cast(:state AS text) IS NULL OR m.state = :state) AND (m.state <> 'waiting' OR {_OPEN})
ORDER BY c.weight DESC NULLS LAST, m.entry, m.role LIMIT :limit
"""
_ROLES = """
SELECT m.entry, m.role, m.state, m.candidates_more, m.crowded, q.source, q.reasons, f.name AS file, q."row"
FROM match_record AS m JOIN quarantine AS q ON q.id = m.entry JOIN landed_file AS f ON f.id = q.file
WHERE m.entry = :entry AND (cast(:role AS text) IS NULL OR m.role = :role) ORDER BY m.role
"""
# What a document says of the candidate, as the score counts it (hub/matching_subjects.py): a birth date and a sex of the role
# that it claims them of, an address of its only holder. What stands in it of others is nothing to decide by; where it says
# nothing the number itself does.
_CANDIDATES = """
SELECT c.rank, c.weight, c.probability, c.levels, c.weights, c.holding, h.material, h.region, l.source AS said_source,
  l."row" AS said_row, s ->> 'scheme' AS scheme, s ->> 'value' AS value, s ->> 'name' AS name,
  CASE WHEN who.claimed THEN l.document::json -> 'attributes' ->> 'born_on' END AS born,
  CASE WHEN who.claimed THEN l.document::json -> 'attributes' ->> 'sex' END AS sex,
  CASE WHEN json_array_length(l.document::json -> 'holders') = 1 THEN l.document::json -> 'attributes' ->> 'address' END AS address
FROM match_candidate AS c LEFT JOIN holding AS h ON h.key = c.holding
  LEFT JOIN mapped_row AS l ON l.holding = h.key AND l.id = h.mapped
  LEFT JOIN LATERAL (SELECT one AS s, (h.material, one ->> 'role') IN (
      SELECT * FROM unnest(cast(:materials AS text[]), cast(:roles AS text[]))) AS claimed
    FROM json_array_elements(l.document::json -> 'holders') AS one
    WHERE keyed_hash((one ->> 'scheme') || ':' || (one ->> 'value'), :inner, :outer) = c.identifier
    ORDER BY claimed DESC LIMIT 1) AS who ON true
WHERE c.entry = :entry AND c.role = :role {rank} ORDER BY c.rank
"""
