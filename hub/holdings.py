"""What the store knows for an answer, read in one query: holdings of everybody concerned, provenance, freshness.

One statement sees one state of the store: a holding, its provenance and the freshness of its source belong together.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB


@dataclass(frozen=True)
class Provenance:
    """One row that says so."""

    source: str
    file: str
    row: int


@dataclass(frozen=True)
class Holding:
    """One certificate. ``holders``: for each asked identifier (keyed hash) its roles in the certificate."""

    key: str
    material: str
    source: str
    status: str
    valid_from: dt.date | None
    valid_to: dt.date | None
    region: str | None
    conflicting: bool
    holders: Mapping[bytes, tuple[str, ...]]
    provenance: tuple[Provenance, ...]


@dataclass(frozen=True)
class Freshness:
    """A source and how fresh it is. ``last_success_at`` is None while it never ran to the end."""

    source: str
    material: str
    region: str
    last_success_at: dt.datetime | None
    promise: dt.timedelta

    def late(self, now: dt.datetime) -> bool:
        """Behind its promise; a source that never succeeded is not connected rather than late."""
        return self.last_success_at is not None and self.last_success_at + self.promise < now


@dataclass(frozen=True)
class Known:
    """All that one question needs of the store."""

    holdings: tuple[Holding, ...]
    sources: tuple[Freshness, ...]


_NOW = """
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(f)), '[]') FROM (
    SELECT encode(h.key, 'hex') AS key, h.material, h.source, h.status, h.valid_from, h.valid_to, h.region,
      h.conflicting, w.holders,
      (SELECT coalesce(jsonb_agg(jsonb_build_object('source', o.source, 'file', l.name, 'row', o."row")
                                 ORDER BY o.source, l.name, o."row"), '[]')
       FROM observation AS o JOIN landed_file AS l ON l.id = o.file WHERE o.holding = h.key) AS provenance
    FROM (SELECT holding, jsonb_agg(jsonb_build_array(encode(identifier, 'hex'), role)) AS holders
          FROM holding_holder WHERE identifier = ANY(:identifiers) GROUP BY holding) AS w
    JOIN holding AS h ON h.key = w.holding AND h.material = ANY(:materials)) AS f) AS holdings,
  (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') FROM (
    SELECT name AS source, entity AS material, region, last_success_at, promise_seconds
    FROM source WHERE entity = ANY(:materials)) AS s) AS sources
"""

# As recorded at a time: the version then in force, and runs that had ended by then. Versions are kept by holding, so
# holders are found in the documents themselves (`@>` can use a GIN index on `document -> 'holders'`).
_THEN = """
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(f)), '[]') FROM (
    SELECT encode(v.holding, 'hex') AS key, v.material, v.source, coalesce(v.document ->> 'status', 'in_force') AS status,
      v.document ->> 'valid_from' AS valid_from, v.document ->> 'valid_to' AS valid_to, v.document ->> 'region' AS region,
      false AS conflicting,
      (SELECT jsonb_agg(jsonb_build_array(a ->> 'identifier', h ->> 'role'))
       FROM jsonb_array_elements(v.document -> 'holders') AS h
       JOIN jsonb_array_elements(:asked) AS a ON h @> (a -> 'holder')) AS holders,
      (SELECT coalesce(jsonb_agg(jsonb_build_object('source', v.source, 'file', l.name, 'row', v."row")), '[]')
       FROM landed_file AS l WHERE l.id = v.file) AS provenance
    FROM holding_version AS v
    WHERE v.material = ANY(:materials) AND v.document IS NOT NULL
      AND v.recorded_from <= :at AND (v.recorded_to IS NULL OR v.recorded_to > :at)
      AND EXISTS (SELECT FROM jsonb_array_elements(:asked) AS a
                  WHERE v.document -> 'holders' @> jsonb_build_array(a -> 'holder'))) AS f) AS holdings,
  (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') FROM (
    SELECT name AS source, entity AS material, region, promise_seconds,
      (SELECT max(b.finished_at) FROM batch AS b
       WHERE b.source = source.name AND b.state = 'merged' AND b.kind = 'run' AND b.finished_at <= :at) AS last_success_at
    FROM source WHERE entity = ANY(:materials)) AS s) AS sources
"""


@functools.cache
def _now() -> sa.TextClause:
    return sa.text(_NOW).bindparams(
        sa.bindparam("identifiers", type_=ARRAY(BYTEA)), sa.bindparam("materials", type_=ARRAY(sa.Text))
    )


@functools.cache
def _then() -> sa.TextClause:
    return sa.text(_THEN).bindparams(
        sa.bindparam("asked", type_=JSONB),
        sa.bindparam("materials", type_=ARRAY(sa.Text)),
        sa.bindparam("at", type_=sa.DateTime(timezone=True)),
    )


def current(connection: sa.Connection, identifiers: Sequence[bytes], materials: Sequence[str]) -> Known:
    """Holdings of ``materials`` now in the store under any of the keyed hashes ``identifiers``."""
    bind = {"identifiers": list(identifiers), "materials": list(materials)}
    return _known(connection.execute(_now(), bind).one())


def recorded(
    connection: sa.Connection, holders: Mapping[bytes, tuple[str, str]], materials: Sequence[str], at: dt.datetime
) -> Known:
    """The same as the store knew it at ``at``. ``holders``: keyed hash -> (scheme, normalised value)."""
    asked = [
        {"identifier": digest.hex(), "holder": {"scheme": scheme, "value": value}}
        for digest, (scheme, value) in holders.items()
    ]
    bind = {"asked": asked, "materials": list(materials), "at": at}
    return _known(connection.execute(_then(), bind).one())


def _known(row: Any) -> Known:
    return Known(tuple(map(_holding, row.holdings)), tuple(map(_freshness, row.sources)))


def _holding(found: dict[str, Any]) -> Holding:
    holders: dict[bytes, tuple[str, ...]] = {}
    for identifier, role in found["holders"]:
        digest = bytes.fromhex(identifier)
        holders[digest] = tuple(sorted({*holders.get(digest, ()), role}))
    return Holding(
        key=found["key"],
        material=found["material"],
        source=found["source"],
        status=found["status"],
        valid_from=_date(found["valid_from"]),
        valid_to=_date(found["valid_to"]),
        region=found["region"],
        conflicting=found["conflicting"],
        holders=holders,
        provenance=tuple(Provenance(**row) for row in found["provenance"]),
    )


def _freshness(found: dict[str, Any]) -> Freshness:
    last = found["last_success_at"]
    return Freshness(
        source=found["source"],
        material=found["material"],
        region=found["region"],
        last_success_at=dt.datetime.fromisoformat(last) if last else None,
        promise=dt.timedelta(seconds=found["promise_seconds"]),
    )


def _date(value: str | None) -> dt.date | None:
    return dt.date.fromisoformat(value) if value else None
