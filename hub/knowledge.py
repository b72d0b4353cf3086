"""What the store knows now for many questions at once, in one statement: the part of a lookup that asks the database.

One statement sees one state of the store: a holding, its rows and who is one with whom belong together. How fresh the
sources are, the epoch keys and the files' names change a few times an hour: they are kept (:class:`Snapshot`), and each
statement tells whether they are still what the store has. The statement runs under any driver: :func:`current` asks over
SQLAlchemy, the API's lanes (:mod:`hub.api.lanes`) over asyncpg.
"""

from __future__ import annotations

import bisect
import datetime as dt
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from hub import home, index_keys, predicates
from hub.holdings import TOLD_OF, Freshness, Holders, Known
from hub.index_keys import SealedKey
from hub.predicates import Tests


class Shape(NamedTuple):
    """All of a certificate that a decision about one party can depend on; ``roles``: what the party is in it."""

    material: str
    source: str
    status: str
    valid_from: dt.date | None
    valid_to: dt.date | None
    region: str | None
    conflicting: bool
    hub: str | None
    epoch: str | None
    as_of: dt.datetime | None
    issued_on: dt.date | None
    tests: Tests
    roles: tuple[str, ...]


class Found(NamedTuple):
    """One certificate of one party. ``rows``: (source, file, row) that say so."""

    key: str
    shape: Shape
    rows: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of one party of a question: its certificates by key, whether what links it contradicts itself, and
    the rows and decisions that make it one with others."""

    found: tuple[Found, ...] = ()
    undecided: bool = False
    through: tuple[Mapping[str, Any], ...] = ()


class Snapshot:
    """What changes seldom: sources and how fresh they are, and the keys of partners' indexes.

    ``version``: as the store tells it. ``partners``: source -> the partner hub it reads, and when it did to the end.
    ``deadlines``: when sources fall behind their promise, in order; between two of them nothing changes by itself.
    ``digest``: of the sources, 16 bytes; ``hex``: the same as text.
    """

    def __init__(
        self,
        version: str,
        sources: Iterable[Freshness],
        keys: Iterable[SealedKey] = (),
        partners: Mapping[str, tuple[str, dt.datetime | None]] | None = None,
    ) -> None:
        self.version = version
        self.sources = tuple(sorted(sources, key=lambda one: (one.source, one.material, one.region)))
        self.keys = frozenset(keys)
        self.partners = partners or {}
        self.deadlines = sorted(s.last_success_at + s.promise for s in self.sources if s.last_success_at is not None)
        self.text = json.dumps([described(source) for source in self.sources], ensure_ascii=False)
        self.digest = digested(self.text)
        self.hex = self.digest.hex()
        self.decided: object = None  # what was decided under it, for whoever decides

    def passed(self, moment: dt.datetime) -> int:
        """How many sources are behind their promise at ``moment``."""
        return bisect.bisect_left(self.deadlines, moment)


def described(source: Freshness) -> list[Any]:
    """A source as an answer's inputs keep it."""
    at = source.last_success_at.astimezone(dt.UTC).isoformat() if source.last_success_at else None
    return [source.source, source.material, source.region, at, source.promise.total_seconds(), source.hub]


def digested(text: str) -> bytes:
    """What sources are kept under (:attr:`Snapshot.text`), 16 bytes."""
    return hashlib.sha256(text.encode()).digest()[:16]


def restored(described: Sequence[Any]) -> Freshness:
    """The opposite of :func:`described`."""
    source, material, region, at, promise, hub = described
    last = dt.datetime.fromisoformat(at) if at else None
    return Freshness(source, material, region, last, dt.timedelta(seconds=promise), hub)


# The versions of small tables: xmin of a row changes with every change of it (PostgreSQL, system columns).
VERSION = """
  (SELECT coalesce(string_agg(xmin::text, ','), '') FROM source)
  || (SELECT '/' || coalesce(string_agg(xmin::text, ','), '') FROM index_key)
  || (SELECT '/' || coalesce(string_agg(xmin::text, ','), '') FROM index_scope)"""

# Kinds of rows: h a holding, e an entry of a partner's index, m a member of a cluster, v the version; of :data:`THROUGH` r a
# row and d a decision that join. What rows of several kinds share stands in one column.
NOW = f"""
WITH linked AS MATERIALIZED (
  SELECT DISTINCT m.identifier, m.cluster, m.state FROM unnest({{identifiers}}) AS asked (identifier)
    CROSS JOIN LATERAL (SELECT * FROM identity_member AS i WHERE i.identifier = asked.identifier OFFSET 0) AS s
    CROSS JOIN LATERAL (
      SELECT * FROM identity_member AS i WHERE i.component = s.component AND i.cluster = s.cluster OFFSET 0) AS m
), wanted AS MATERIALIZED (
  SELECT unnest({{identifiers}}) AS identifier UNION SELECT identifier FROM linked
)
SELECT 'h' AS kind, w.identifier, w.role, h.key, h.material, h.source, h.status, h.valid_from, h.valid_to, h.region,
  h.conflicting, (SELECT name FROM landed_file WHERE id = m.file) AS file, m."row",
  CASE WHEN h.observations > 1 THEN (
    SELECT json_agg(json_build_array(o.source, f.name, o."row"))::text
    FROM observation AS o JOIN landed_file AS f ON f.id = o.file WHERE o.holding = h.key) END AS more,
  CASE WHEN h.material = ANY({{documented}}) THEN m.document END AS document
FROM wanted CROSS JOIN LATERAL (
    SELECT * FROM holding_holder AS i WHERE i.identifier = wanted.identifier OFFSET 0) AS w
  CROSS JOIN LATERAL (SELECT * FROM holding AS i WHERE i.key = w.holding OFFSET 0) AS h
  CROSS JOIN LATERAL (SELECT * FROM mapped_row AS i WHERE i.holding = h.key AND i.id = h.mapped OFFSET 0) AS m
WHERE h.material = ANY({{materials}})
UNION ALL
SELECT 'm', identifier, state, cluster, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM linked
UNION ALL
SELECT 'v', NULL, NULL, NULL, NULL, {VERSION}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
"""
# The same of few who are asked about alone. Their identifiers stand in the statement one by one, so that the server begins to
# read one partition for each and not all, which takes longer than the reading. It tells that there is a cluster, or a
# certificate of several observations (:data:`MORE`), and not of what: then :data:`NOW` is asked.
ALONE, MORE = 3, "+"
NOW_ALONE = f"""
SELECT 'h' AS kind, w.identifier, w.role, h.key, h.material, h.source, h.status, h.valid_from, h.valid_to, h.region,
  h.conflicting, (SELECT name FROM landed_file WHERE id = m.file) AS file, m."row",
  CASE WHEN h.observations > 1 THEN '{MORE}' END AS more,
  CASE WHEN h.material = ANY({{documented}}) THEN m.document END AS document
FROM holding_holder AS w
  CROSS JOIN LATERAL (SELECT * FROM holding AS i WHERE i.key = w.holding OFFSET 0) AS h
  CROSS JOIN LATERAL (SELECT * FROM mapped_row AS i WHERE i.holding = h.key AND i.id = h.mapped OFFSET 0) AS m
WHERE w.identifier = ANY(ARRAY[{{each}}]) AND h.material = ANY({{materials}})
UNION ALL
SELECT 'm', identifier, state, cluster, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM identity_member WHERE identifier = ANY(ARRAY[{{each}}])
UNION ALL
SELECT 'v', NULL, NULL, NULL, NULL, {VERSION}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
"""
# Asked beside it where partners' indexes are read.
ENTRIES = """
UNION ALL
SELECT 'e', e.identifier, e.role, e.handle, e.material, e.source, e.status, e.valid_from, e.valid_to, e.region,
  NULL, (SELECT name FROM landed_file WHERE id = e.file), e."row", e.epoch, NULL
FROM index_entry AS e WHERE e.identifier = ANY({foreign}) AND e.material = ANY({materials}) AND e.recorded_to IS NULL
"""
# What makes clusters, asked where anybody is in one.
THROUGH = """
SELECT DISTINCT 'r', m.cluster, o.source, f.name, o."row"
FROM identity_member AS m JOIN identity_link AS l ON l.one = m.identifier AND l.state = 'standing'
  JOIN observation AS o ON o.holding = l.link JOIN landed_file AS f ON f.id = o.file
WHERE m.identifier = ANY({members}) AND m.state = 'joined'
UNION ALL
SELECT DISTINCT 'd', m.cluster, d.decision, NULL, NULL::bigint
FROM identity_member AS m JOIN identity_decision AS d ON d.member = m.identifier
WHERE m.identifier = ANY({members}) AND d.kind = 'merge' AND d.side = 0 AND d.ended_by IS NULL
"""

# The epoch in force may have nothing in its scope.
SNAPSHOT = f"""
SELECT {VERSION} AS version,
  (SELECT coalesce(jsonb_agg(jsonb_build_array(name, coalesce(hub, name), last_success_at)), '[]') FROM source)::text AS partners,
  (SELECT coalesce(jsonb_agg(jsonb_build_array(s.source, s.material, s.region, s.last_success_at, s.promise, s.hub)), '[]') FROM (
    SELECT name AS source, entity AS material, region, last_success_at, promise_seconds AS promise, NULL AS hub FROM source
    UNION ALL
    SELECT name, c.material, {TOLD_OF}, last_success_at, promise_seconds, coalesce(hub, name)
    FROM index_scope AS c JOIN source ON source.name = c.source
    WHERE c.epoch = (SELECT max(i.epoch COLLATE "C") FROM index_key AS i WHERE i.source = c.source)) AS s)::text AS sources,
  (SELECT coalesce(jsonb_agg(jsonb_build_array(k.source, k.epoch, encode(k.sealed, 'hex'))), '[]') FROM (
    SELECT DISTINCT ON (source) * FROM index_key ORDER BY source, epoch COLLATE "C" DESC) AS k)::text AS keys
"""


def snapshot(version: str, partners: str, sources: str, keys: str) -> Snapshot:
    """What a row of :data:`SNAPSHOT` says."""
    return Snapshot(
        version,
        map(restored, orjson.loads(sources)),
        (SealedKey(source, epoch, bytes.fromhex(sealed)) for source, epoch, sealed in orjson.loads(keys)),
        {name: (hub, dt.datetime.fromisoformat(at) if at else None) for name, hub, at in orjson.loads(partners)},
    )


class Gathered:
    """The rows of :data:`NOW` by whom they are about. ``foreign``: entry identifiers -> the identifiers asked about."""

    def __init__(self, rows: Iterable[Sequence[Any]], known: Snapshot, foreign: Mapping[bytes, bytes]) -> None:
        self.version = ""
        self.known = known
        self.held: dict[bytes, list[Sequence[Any]]] = {}
        self.cluster: dict[bytes, tuple[bytes, str]] = {}
        self.members: dict[bytes, list[bytes]] = {}
        self.through: dict[bytes, list[Mapping[str, Any]]] = {}
        self.documents: dict[bytes, tuple[dt.date | None, Tests]] = {}
        for row in rows:
            kind = row[0]
            if kind == "h":
                self.held.setdefault(row[1], []).append(row)
            elif kind == "e":
                self.held.setdefault(foreign[row[1]], []).append(row)
            elif kind == "m":
                self.cluster[row[1]] = row[3], row[2]
                self.members.setdefault(row[3], []).append(row[1])
            else:
                self.version = row[5]

    def joined(self) -> list[bytes]:
        """Those of whom it has to be asked what makes them one (:data:`THROUGH`)."""
        return list(self.cluster)

    def tell(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take in what makes clusters."""
        for kind, cluster, source, file, row in rows:
            said = {"source": source, "file": file, "row": row} if kind == "r" else {"decision": source}
            self.through.setdefault(cluster, []).append(said)

    def subject(self, digest: bytes) -> Subject:
        """What is known of one of those asked about."""
        linked = self.cluster.get(digest)
        if linked is None:
            rows = self.held.get(digest)
            return Subject(self._found(rows)) if rows else _NOBODY
        cluster, state = linked
        rows = [row for member in self.members[cluster] for row in self.held.get(member, ())]
        through = tuple(sorted(self.through.get(cluster, ()), key=str))
        return Subject(self._found(rows), state != "joined", through)

    def _found(self, rows: list[Sequence[Any]]) -> tuple[Found, ...]:
        if len(rows) == 1:
            return (self._one(rows[0], (rows[0][2],)),)
        roles: dict[bytes, list[str]] = {}
        kept = {}
        for row in rows:
            roles.setdefault(row[3], []).append(row[2])
            kept[row[3]] = row
        return tuple(self._one(kept[key], tuple(sorted(set(roles[key])))) for key in sorted(kept))

    def _one(self, row: Sequence[Any], roles: tuple[str, ...]) -> Found:
        (
            kind,
            _,
            _,
            key,
            material,
            source,
            status,
            valid_from,
            valid_to,
            region,
            conflicting,
            file,
            at,
            more,
            document,
        ) = row
        if kind == "e":
            hub, as_of = self.known.partners[source]
            shape = Shape(
                material, source, status, valid_from, valid_to, region, False, hub, more, as_of, None, (), roles
            )
            return Found(key.hex(), shape, ((source, file, at),) if file else ())
        issued_on, tests = predicates.told(material, document) if document else (None, ())
        shape = Shape(
            material, source, status, valid_from, valid_to, region, conflicting, None, None, None, issued_on, tests, roles
        )  # fmt: skip
        said = tuple(sorted((name, path, number) for name, path, number in orjson.loads(more))) if more else ()
        return Found(key.hex(), shape, said or (((source, file, at),) if file else ()))


_NOBODY = Subject()


def documented() -> list[str]:
    """Materials whose documents have to be read."""
    return list(predicates.wanted())


def foreign(known: Snapshot, holders: Holders) -> dict[bytes, bytes]:
    """Who is asked about, as partners' indexes name them: identifier of an entry -> keyed hash."""
    return index_keys.asked_as(home.current(), known.keys, holders, home.keyed_hash()) if known.keys else {}


def current(connection: sa.Connection, holders: Holders, materials: Sequence[str]) -> tuple[Gathered, Snapshot]:
    """What the store knows now of ``holders``; asked again when the snapshot is not the store's any more."""
    place = (str(home.current().path), connection.engine.url.render_as_string(hide_password=True))
    known = _snapshots.get(place, _NONE)
    bind = {"identifiers": list(holders), "materials": list(materials), "documented": documented()}
    while True:
        others = foreign(known, holders)
        more = {"foreign": list(others)} if others else {}
        rows = connection.execute(_bound(NOW + ENTRIES if others else NOW), {**bind, **more})
        found = Gathered(rows, known, others)
        if found.version == known.version:
            break
        known = _snapshots[place] = snapshot(*connection.execute(sa.text(SNAPSHOT)).one())
    if members := found.joined():
        found.tell(connection.execute(_bound(THROUGH), {"members": members}))
    return found, known


_NONE = Snapshot("", ())
_snapshots: dict[tuple[str, str], Snapshot] = {}


@functools.cache
def _bound(statement: str) -> sa.TextClause:
    """With a place for each array, which looks the same to the planner whatever is asked, so that its plan is kept."""
    types: dict[str, Any] = {name: ARRAY(BYTEA) for name in ("identifiers", "foreign", "members")}
    types |= {name: ARRAY(sa.Text) for name in ("materials", "documented")}
    used = {name: kind for name, kind in types.items() if f"{{{name}}}" in statement}
    text = statement.format(**{name: f"(:{name})" for name in used})
    return sa.text(text).bindparams(*(sa.bindparam(name, type_=kind) for name, kind in used.items()))


def parties(known: Known, digests: Mapping[str, bytes]) -> dict[str, Subject]:
    """What was known then (:func:`hub.holdings.recorded`) of each role, in the same form."""
    people = known.people
    found: dict[str, list[Found]] = {role: [] for role in digests}
    for one in sorted(known.holdings, key=lambda holding: holding.key):
        for role, digest in digests.items():
            if digest in one.holders:
                shape = Shape(
                    one.material, one.source, one.status, one.valid_from, one.valid_to, one.region, one.conflicting, one.hub,
                    one.epoch, one.as_of, one.issued_on, one.tests, one.holders[digest],
                )  # fmt: skip
                found[role].append(Found(one.key, shape, tuple((r.source, r.file, r.row) for r in one.provenance)))
    return {
        role: Subject(tuple(found[role]), digest in people.undecided, tuple(people.through.get(digest, ())))
        for role, digest in digests.items()
    }
