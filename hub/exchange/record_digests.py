"""Digests of announced records, in SQL: of what this hub announces, and of what it was told.

A record's digest is the first half of the SHA-256 of one text: handle, material, region, status, valid_from, valid_to,
digest of the version, and subjects as ``role:id`` in the order of bytes, all parted by ``|`` (docs/protocol/50-reconciliation.md).
Digests of a part are its records' two 64-bit halves, each added up modulo 2^64, so that order does not matter and a record
that is there twice does not cancel itself. One statement answers a question, however many parts it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hub import home, joining
from hub.exchange.announced import Given, Received
from hub.exchange.descent import Asked, Part, Parts
from hub.joining import Join

WHOLE = Asked(("",), ())  # the first question: all parts of all records
FEW = 0.04  # share of all records up to which documents are looked up one by one
MOVED = 10_000  # records that may have changed since a position before it is better to read the feed first


@dataclass(frozen=True)
class Announced:
    """What this hub announces. ``moved``: handles of what was announced after the position asked about, or more than
    :data:`MOVED` of them; they are in no part."""

    parts: Parts
    moved: tuple[str, ...]
    head: int


@dataclass(frozen=True)
class Told:
    """One announcement as it was taken in."""

    handle: str
    material: str
    position: int


def announced(connection: sa.Connection, given: Given, asked: Asked, until: int) -> Announced:
    """The parts ``asked`` of all that is announced and has not changed after position ``until``, as of one moment."""
    bind = {**_scope(given), **_prefixes(asked), "until": until, "most": MOVED + 1}
    lookup = len(bind["prefixes"]) <= FEW * 256 ** bind["depth"]
    with _settings(connection), joining.forced(connection, lookup=lookup) as join:
        rows = connection.execute(sa.text(_announced(join, whole=asked == WHOLE)), bind).all()
    return Announced(
        {row.part: _part(row) for row in rows if row.kind == "part"},
        tuple(row.part for row in rows if row.kind == "moved"),
        next(int(row.records) for row in rows if row.kind == "head"),
    )


def holdings(connection: sa.Connection, given: Given, handles: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Handle -> key (hex) and material of the certificates that ``handles`` stand for and that are held and announced."""
    rows = connection.execute(sa.text(_KEYS), {**_scope(given), "handles": _bytes(handles)})
    return {row.handle: (row.key, row.material) for row in rows}


def take_in(connection: sa.Connection, received: Received, *, on_commit: str = "DROP") -> None:
    """Make the temporary table ``told``: the announcements in force of ``received.source``, each with its digest."""
    bind = {"source": received.source, "epoch": received.epoch}
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.told"))
    with _settings(connection), joining.forced(connection, lookup=False):
        connection.execute(sa.text(_TAKEN.format(on_commit=on_commit)), bind)
    connection.execute(sa.text("ANALYZE told"))


def told(connection: sa.Connection, asked: Asked, moved: Iterable[str]) -> Parts:
    """The parts ``asked`` of the table ``told`` without the handles that ``moved``."""
    bind = {**_prefixes(asked), "moved": _bytes(moved)}
    return {row.part: _part(row) for row in connection.execute(sa.text(_TOLD), bind)}


def of_handles(connection: sa.Connection, handles: Sequence[str]) -> dict[str, Told]:
    """What the table ``told`` says of ``handles``."""
    rows = connection.execute(sa.text(_OF_HANDLES), {"handles": _bytes(handles)})
    return {row.handle: Told(row.handle, row.material, row.position) for row in rows}


def look_at_entries(connection: sa.Connection, received: Received, *, on_commit: str = "DROP") -> None:
    """Make the temporary table ``amiss``: handles of certificates whose index entries do not follow from the table ``told``."""
    hashing = home.keyed_hash()
    bind = {"source": received.source, "epoch": received.epoch, "inner": hashing.inner, "outer": hashing.outer}
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.amiss"))
    with _settings(connection), joining.forced(connection, lookup=False):
        connection.execute(sa.text(_AMISS.format(on_commit=on_commit)), bind)


def amiss(connection: sa.Connection, known: Iterable[str], shown: int = 0) -> tuple[int, tuple[str, ...]]:
    """How many of the table ``amiss`` are not among the handles ``known``, and some of them."""
    row = connection.execute(sa.text(_COUNTED), {"known": _bytes(known), "shown": shown}).one()
    return row.found, tuple(row.handles or ())


@contextmanager
def _settings(connection: sa.Connection) -> Iterator[None]:
    """For statements over all records, of which the planner expects few: dates as the protocol writes them, memory for
    millions of rows, tables spread alike joined part by part, and as many processes as the server allows."""
    connection.execute(sa.text("".join(f"SET LOCAL {name} = {value};" for name, value in _SETTINGS.items())))
    yield
    connection.execute(sa.text("".join(f"SET LOCAL {name} TO DEFAULT;" for name in _SETTINGS if name != "datestyle")))


def _part(row: sa.Row) -> Part:
    one, other = (int(half) % 2**64 for half in (row.one, row.other))
    return Part(int(row.records), f"{one:016x}{other:016x}")


def _prefixes(asked: Asked) -> dict[str, Any]:
    prefixes = (*asked.within, *asked.listed)
    return {
        "depth": len(prefixes[0]) // 2 if prefixes else 0,
        "prefixes": _bytes(prefixes),
        "listed": [False] * len(asked.within) + [True] * len(asked.listed),
    }


def _bytes(handles: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(handle) for handle in handles]


def _scope(given: Given) -> dict[str, object]:
    return {
        "materials": list(given.materials),
        "regions": [f"{region}%" for region in given.regions],
        "inner": given.key.inner,
        "outer": given.key.outer,
    }


_SETTINGS = {
    "datestyle": "ISO",
    "work_mem": "'256MB'",
    "enable_partitionwise_join": "on",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
}


def _once(expression: str) -> str:
    """``expression`` in a form that the planner takes for one that may change: it is not written out wherever its name
    stands, and computed as often, nor before rows are left out. Unlike an offset it leaves the work to several processes."""
    return f"CASE WHEN clock_timestamp() IS NOT NULL THEN {expression} END"


_TEXT = """concat_ws('|', encode(handle, 'hex'), material, coalesce(region, ''), status, coalesce(valid_from::text, ''),
  coalesce(valid_to::text, ''), version, coalesce(subjects, ''))"""
_HASH = f"encode(sha256(convert_to({_TEXT}, 'UTF8')), 'hex')"
_HALVES = "('x' || left(h, 16))::bit(64)::bigint AS one, ('x' || substr(h, 17, 16))::bit(64)::bigint AS other"
_WANTED = "unnest(cast(:prefixes AS bytea[]), cast(:listed AS boolean[])) AS a (prefix, listed)"
_PART = "CASE WHEN listed THEN handle ELSE substr(handle, 1, cast(:depth AS int) + 1) END"
_SUMS = "count(*) AS records, sum(one)::text AS one, sum(other)::text AS other"
_HANDLE = "keyed_hash('holding:' || encode({key}, 'hex'), :inner, :outer)"
# Null where the one holder has no identifier.
_SUBJECT = """(holders -> 0 ->> 'role') || ':'
  || encode(keyed_hash((holders -> 0 ->> 'scheme') || ':' || (holders -> 0 ->> 'value'), :inner, :outer), 'hex')"""
# What was announced after the position, and what left the scope after it: as a page of the feed would (hub/index_feed.py).
_MOVED = f"""
SELECT encode({_HANDLE.format(key="f.holding")}, 'hex') AS part
FROM (SELECT DISTINCT holding FROM feed WHERE position > :until AND material = ANY (cast(:materials AS text[])) OFFSET 0) AS f
WHERE (
  SELECT bool_or(coalesce(v.document ->> 'region', (SELECT s.region FROM source AS s WHERE s.name = v.source))
    LIKE ANY (cast(:regions AS text[])))
  FROM holding_version AS v WHERE v.holding = f.holding)
LIMIT :most
"""
# A condition written as a case is not taken for one that lets hardly anything through.
_SCOPED = f"""
SELECT h.key, h.mapped, h.material, coalesce(h.region, s.region) AS region, h.status, h.valid_from, h.valid_to, h.digest,
  {_once(_HANDLE.format(key="h.key"))} AS handle
FROM holding AS h JOIN source AS s ON s.name = h.source
WHERE h.material = ANY (cast(:materials AS text[]))
  AND CASE WHEN coalesce(h.region, s.region) LIKE ANY (cast(:regions AS text[])) THEN true END
"""


def _announced(join: Join, *, whole: bool) -> str:
    settled = f"{_SCOPED} AND NOT EXISTS (SELECT FROM feed AS f WHERE f.position > :until AND f.holding = h.key)"
    wanted = f"SELECT s.*, false AS listed FROM ({settled}) AS s"
    if not whole:
        wanted = f"SELECT s.*, a.listed FROM ({settled}) AS s JOIN {_WANTED} ON a.prefix = substr(s.handle, 1, :depth)"
    mapped = "m.holding = w.key AND CASE WHEN m.id = w.mapped THEN true END"
    return f"""
SELECT 'part' AS kind, encode(part, 'hex') AS part, {_SUMS}
FROM (
  SELECT part, {_HALVES} FROM (
    SELECT {_PART} AS part, {_once(_HASH)} AS h FROM (
      SELECT read.*, encode(keyed_hash('version:' || replace(digest::text, '-', ''), :inner, :outer), 'hex') AS version,
        CASE WHEN jsonb_array_length(holders) = 1 THEN {_SUBJECT}
          ELSE announced_subjects(holders, :inner, :outer) END AS subjects
      FROM (
        SELECT w.*, {_once("m.document::jsonb -> 'holders'")} AS holders
        FROM ({wanted}) AS w {join("mapped_row", "m", mapped)}
      ) AS read
    ) AS said
  ) AS hashed
) AS halved
GROUP BY part
UNION ALL SELECT 'moved', part, NULL, NULL, NULL FROM ({_MOVED}) AS m
UNION ALL SELECT 'head', NULL, position, NULL, NULL FROM feed_head
"""


_KEYS = f"""
SELECT encode(handle, 'hex') AS handle, encode(key, 'hex') AS key, material FROM ({_SCOPED}) AS s
WHERE handle = ANY (cast(:handles AS bytea[]))
"""
# The documents of an index source are announcements as they came (connectors/sources/*/mapping.csv).
_TAKEN = f"""
CREATE TEMP TABLE told ON COMMIT {{on_commit}} AS
SELECT handle, material, region, status, valid_from, valid_to, version, subjects, position, {_HALVES}
FROM (
  SELECT said.*, {_once(_HASH)} AS h FROM (
    SELECT {_once("decode(d ->> 'certificate_number', 'hex')")} AS handle, left(d ->> 'region', 6) AS region,
      d ->> 'valid_from' AS valid_from, d ->> 'valid_to' AS valid_to, a ->> 'material' AS material, a ->> 'state' AS status,
      a ->> 'digest' AS version, (a ->> 'position')::bigint AS position,
      CASE WHEN strpos(a ->> 'subjects', ' ') > 0 THEN ordered_words(a ->> 'subjects') ELSE a ->> 'subjects' END AS subjects
    FROM (
      SELECT d, {_once("d -> 'attributes'")} AS a FROM (
        SELECT {_once("m.document::jsonb")} AS d
        FROM row_ledger AS l JOIN mapped_row AS m ON m.holding = l.holding
          AND CASE WHEN (m.id, m.source, m.row_key) = (l.mapped, l.source, l.row_key) THEN true END
        WHERE l.source = :source AND l.holding IS NOT NULL
      ) AS mapped
    ) AS attributed
    WHERE d ->> 'certificate_number' ~ '^[0-9a-f]{{{{32}}}}$' AND a ->> 'epoch' = :epoch AND a ->> 'state' <> 'withdrawn'
  ) AS said
) AS hashed
"""
_TOLD = f"""
SELECT encode(part, 'hex') AS part, {_SUMS}
FROM (
  SELECT {_PART} AS part, one, other FROM told JOIN {_WANTED} ON a.prefix = substr(told.handle, 1, :depth)
  WHERE NOT EXISTS (SELECT FROM unnest(cast(:moved AS bytea[])) AS m (handle) WHERE m.handle = told.handle)
) AS d
GROUP BY part
"""
_OF_HANDLES = """
SELECT encode(handle, 'hex') AS handle, material, coalesce(position, 0) AS position FROM told
WHERE handle = ANY (cast(:handles AS bytea[]))
"""
# As hub/verify_sql.py compares all entries of all partners, here those of one source with what is read already.
_AMISS = """
CREATE TEMP TABLE amiss ON COMMIT {on_commit} AS
WITH due AS (
  SELECT t.handle, split_part(said, ':', 1) AS role,
    keyed_hash('index:' || :source || ':' || :epoch || ':' || split_part(said, ':', 2), :inner, :outer) AS identifier,
    (t.material, t.region, t.status, t.valid_from::date, t.valid_to::date, t.version, cast(:epoch AS text))::text AS rest
  FROM told AS t CROSS JOIN LATERAL string_to_table(t.subjects, ' ') AS said
  WHERE said <> '' AND t.material <> '' AND coalesce(starts_with(t.region,
    (SELECT regexp_replace(region, '(00)+$', '') FROM source WHERE name = :source)), true)
), kept AS (
  SELECT handle, role, identifier, (material, region, status, valid_from, valid_to, digest, epoch)::text AS rest
  FROM index_entry WHERE source = :source AND recorded_to IS NULL
)
SELECT DISTINCT coalesce(k.handle, d.handle) AS handle FROM due AS d FULL JOIN kept AS k
  ON k.handle = d.handle AND k.role = d.role AND k.identifier = d.identifier
WHERE d.rest IS DISTINCT FROM k.rest
"""
_COUNTED = """
WITH beside AS (SELECT handle FROM amiss EXCEPT SELECT unnest(cast(:known AS bytea[])))
SELECT (SELECT count(*) FROM beside) AS found,
  (SELECT array_agg(encode(handle, 'hex')) FROM (SELECT handle FROM beside ORDER BY handle LIMIT :shown) AS first) AS handles
"""
