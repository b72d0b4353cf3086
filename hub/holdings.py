"""What the store knew at a time, read in one query: holdings and index entries of everybody concerned, freshness.

One statement sees one state of the store: a holding, its provenance and the freshness of its source belong together. A
partner hub counts as a source of what it tells us of in the epoch, by material and province (``index_scope``): of a province of which
it tells all its silence says something, elsewhere, and of one of which it tells a part, it does not.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from connectors.errors import UsageError
from hub import home, identity_lookup, index_keys, partitions, predicates
from hub.identity_lookup import People
from hub.index_keys import SealedKey
from hub.predicates import Tests

Holders = Mapping[bytes, tuple[str, str]]
"""Who is asked about: keyed hash of an identifier -> its scheme and normalised value."""


@dataclass(frozen=True)
class Provenance:
    """One row that says so."""

    source: str
    file: str
    row: int


@dataclass(frozen=True)
class Holding:
    """One certificate. ``holders``: for each asked identifier (keyed hash) its roles in the certificate.

    ``tests``: what it says of the predicates wanted of its material (:mod:`hub.predicates`). ``hub``: None for our own;
    else the partner hub that says it holds it, with the epoch of the entry, and when we last read its index to the end.
    ``key`` is then the entry's handle.
    """

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
    hub: str | None = None
    epoch: str | None = None
    as_of: dt.datetime | None = None
    issued_on: dt.date | None = None
    tests: Tests = ()


@dataclass(frozen=True)
class Freshness:
    """A source and how fresh it is. ``last_success_at`` is None while it never ran to the end; ``hub`` as in a holding.

    ``region``: six digits; of a partner hub that tells of a part of a province alone the prefixes that it tells of."""

    source: str
    material: str
    region: str
    last_success_at: dt.datetime | None
    promise: dt.timedelta
    hub: str | None = None

    @property
    def whole(self) -> bool:
        """Whether it keeps a whole register: of a part of a province nobody's certificate need be."""
        return self.hub is None or self.region[2:] == "0000"

    def late(self, now: dt.datetime) -> bool:
        """Behind its promise; a source that never succeeded is not connected rather than late."""
        return self.last_success_at is not None and self.last_success_at + self.promise < now


@dataclass(frozen=True)
class Known:
    """All that one question needs of the store. ``people``: who of those asked about is one with whom."""

    holdings: tuple[Holding, ...]
    sources: tuple[Freshness, ...]
    people: People = field(default_factory=People)


# ANY(ARRAY(SELECT unnest(...))) looks the same to the planner whatever is asked, so that a prepared plan is kept: planning
# anew would take longer than answering.
# Entries found, and what partner hubs are sources of, as known now or `{then}`; last runs are `{success}`.
_ENTRIES = """
  (SELECT coalesce(jsonb_agg(to_jsonb(f)), '[]') FROM (
    SELECT encode(e.handle, 'hex') AS key, e.material, e.source, e.status, e.valid_from, e.valid_to, e.region,
      false AS conflicting, coalesce(source.hub, source.name) AS hub, e.epoch, {success} AS as_of,
      jsonb_agg(jsonb_build_array(encode(e.identifier, 'hex'), e.role)) AS holders,
      (SELECT coalesce(jsonb_agg(jsonb_build_object('source', e.source, 'file', l.name, 'row', e."row")), '[]')
       FROM landed_file AS l WHERE l.id = e.file) AS provenance
    FROM index_entry AS e JOIN source ON source.name = e.source
    WHERE e.identifier = ANY(ARRAY(SELECT unnest(:foreign))) AND e.material = ANY(:materials) AND {then}
    GROUP BY source.name, e.source, e.handle, e.material, e.status, e.valid_from, e.valid_to, e.region, e.epoch,
      e.file, e."row") AS f) AS entries
"""
_SOURCES = """
  (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') FROM (
    SELECT name AS source, entity AS material, region, {success} AS last_success_at, promise_seconds, NULL AS hub
    FROM source WHERE entity = ANY(:materials)
    UNION ALL
    SELECT name, c.material, {told_of}, {success}, promise_seconds, coalesce(hub, name)
    FROM index_scope AS c JOIN source ON source.name = c.source WHERE c.material = ANY(:materials) AND {then}
      AND c.epoch = {latest}
    ) AS s) AS sources
"""
# Of what had been announced, or told by a run that had ended.
_EPOCH_BY_THEN = """(SELECT max(i.epoch COLLATE "C") FROM (
        SELECT epoch FROM index_scope WHERE source = c.source AND recorded_from <= :at
        UNION ALL
        SELECT cursor ->> 'epoch' FROM batch WHERE source = c.source AND state = 'merged' AND finished_at <= :at) AS i)"""

# As a region of six digits; of a part the prefixes, which are none.
TOLD_OF = "CASE WHEN c.province = ANY (c.regions) THEN c.province || '0000' ELSE array_to_string(c.regions, ' ') END"
# As recorded at a time: the version then in force, who was one with whom, and runs that had ended by then. One still in force
# has its holders in the index of identifiers, one that ended carries them, and its document says in which roles.
_ENDED_BY_THEN = """(SELECT max(b.finished_at) FROM batch AS b
       WHERE b.source = source.name AND b.state = 'merged' AND b.kind = 'run' AND b.finished_at <= :at)"""
_RECORDED_BY_THEN = "e.recorded_from <= :at AND (e.recorded_to IS NULL OR e.recorded_to > :at)"
_THEN = f"""
WITH {identity_lookup.ALIKE_THEN}
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(f)), '[]') FROM (
    SELECT encode(v.holding, 'hex') AS key, v.material, v.source, coalesce(v.document ->> 'status', 'in_force') AS status,
      v.document ->> 'valid_from' AS valid_from, v.document ->> 'valid_to' AS valid_to, v.document ->> 'region' AS region,
      false AS conflicting, v.holders, CASE WHEN v.material = ANY(:documented) THEN v.document::text END AS document,
      (SELECT coalesce(jsonb_agg(jsonb_build_object('source', v.source, 'file', l.name, 'row', v."row")), '[]')
       FROM landed_file AS l WHERE l.id = v.file) AS provenance
    FROM (
      SELECT h.key AS holding, h.material, h.source, m.file, m."row", m.document::jsonb, w.holders
      FROM (SELECT holding, jsonb_agg(jsonb_build_array(encode(identifier, 'hex'), role)) AS holders
            FROM holding_holder WHERE identifier = ANY({identity_lookup.EXPANDED}) GROUP BY holding) AS w
        JOIN holding AS h ON h.key = w.holding JOIN batch AS b ON b.id = h.batch AND b.recorded_at <= :at
        JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
      UNION ALL
      SELECT p.holding, p.material, p.source, p.file, p."row", p.document,
        (SELECT coalesce(jsonb_agg(jsonb_build_array(encode(w.identifier, 'hex'), w.role)), '[]') FROM (
          SELECT keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), :inner, :outer) AS identifier, s ->> 'role' AS role
          FROM jsonb_array_elements(p.document -> 'holders') AS s) AS w WHERE w.identifier = ANY({identity_lookup.EXPANDED}))
      FROM holding_past AS p
      WHERE p.identifiers && {identity_lookup.EXPANDED} AND p.recorded_from <= :at AND p.recorded_to > :at
    ) AS v
    WHERE v.material = ANY(:materials)) AS f) AS holdings,
{identity_lookup.PEOPLE_THEN},
{_ENTRIES.format(success=_ENDED_BY_THEN, then=_RECORDED_BY_THEN)},
{_SOURCES.format(success=_ENDED_BY_THEN, then="c.recorded_from <= :at", told_of=TOLD_OF, latest=_EPOCH_BY_THEN)},
  (SELECT coalesce(jsonb_agg(jsonb_build_array(k.source, k.epoch, encode(k.sealed, 'hex'))), '[]')
   FROM index_key AS k) AS keys_
"""
_TYPES: dict[str, Any] = {
    "identifiers": ARRAY(BYTEA),
    "foreign": ARRAY(BYTEA),
    "materials": ARRAY(sa.Text),
    "documented": ARRAY(sa.Text),
    "inner": BYTEA,
    "outer": BYTEA,
    "at": sa.DateTime(timezone=True),
}


@functools.cache
def _prepared(statement: str, *names: str) -> sa.TextClause:
    return sa.text(statement).bindparams(*(sa.bindparam(name, type_=_TYPES[name]) for name in names))


def recorded(connection: sa.Connection, holders: Holders, materials: Sequence[str], at: dt.datetime) -> Known:
    """Holdings and entries of ``materials`` as the store knew them at ``at`` for anybody of ``holders``: who was one with whom then, and of whom that contradicted itself.

    What was not kept is left out: whether sources disagreed on a certificate (``conflicting``), rows that agreed with the one
    in force, and of what linked people the rows that say so no more or were read anew since (:mod:`hub.identity_lookup`).
    UsageError ``as-of-dropped`` for a time whose history is no longer kept.
    """
    since = partitions.since(connection, *partitions.HISTORY)
    if since and at < dt.datetime.combine(since, dt.time(), dt.UTC):
        raise UsageError("as-of-dropped", since=since)
    if (begins := partitions.history_begins(connection)) and at < begins:
        raise UsageError("as-of-dropped", since=f"{begins:%Y-%m-%dT%H:%M:%S.%fZ}")
    hashing = home.keyed_hash()
    bind = {"identifiers": list(holders), "materials": list(materials), "at": at}
    more = {"inner": hashing.inner, "outer": hashing.outer, "documented": list(predicates.wanted())}
    return _ask(connection, _THEN, holders, {**bind, **more})


# The keys of the last question: they change once an epoch, so nearly every question is one query.
_keys: dict[tuple[home.Home, str], frozenset[SealedKey]] = {}


def _ask(connection: sa.Connection, statement: str, holders: Holders, bind: dict[str, Any]) -> Known:
    """Ask with the keys known, and again when the store has others by now."""
    here, hashing = home.current(), home.keyed_hash()
    keys = _keys.get((here, statement), frozenset())
    while True:
        foreign = index_keys.asked_as(here, keys, holders, hashing)
        row = connection.execute(_prepared(statement, *bind, "foreign"), {**bind, "foreign": list(foreign)}).one()
        valid = frozenset(SealedKey(source, epoch, bytes.fromhex(sealed)) for source, epoch, sealed in row.keys_)
        if valid == keys:
            break
        keys = _keys[here, statement] = valid
    people = identity_lookup.people(holders, row.people)
    own = [_holding(found, people.of) for found in row.holdings]
    entries = [_holding(found, lambda digest: (foreign.get(digest, digest),)) for found in row.entries]
    return Known((*own, *entries), tuple(map(_freshness, row.sources)), people)


def _holding(found: dict[str, Any], asked_as: Callable[[bytes], tuple[bytes, ...]]) -> Holding:
    holders: dict[bytes, tuple[str, ...]] = {}
    for identifier, role in found["holders"]:
        for digest in asked_as(bytes.fromhex(identifier)):
            holders[digest] = tuple(sorted({*holders.get(digest, ()), role}))
    document = found.get("document")
    issued_on, tests = predicates.told(found["material"], document) if document else (None, ())
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
        hub=found.get("hub"),
        epoch=found.get("epoch"),
        as_of=_time(found.get("as_of")),
        issued_on=issued_on,
        tests=tests,
    )


def _freshness(found: dict[str, Any]) -> Freshness:
    return Freshness(
        source=found["source"],
        material=found["material"],
        region=found["region"],
        last_success_at=_time(found["last_success_at"]),
        promise=dt.timedelta(seconds=found["promise_seconds"]),
        hub=found["hub"],
    )


def _date(value: str | None) -> dt.date | None:
    return dt.date.fromisoformat(value) if value else None


def _time(value: str | None) -> dt.datetime | None:
    return dt.datetime.fromisoformat(value) if value else None
