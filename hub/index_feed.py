"""The index feed this hub publishes (docs/protocol/25-index.md): pages of what it holds, in ids only one peer can make.

One set-based statement a page: the feed from a position on, each holding once, at its latest position; ids are made in
SQL. At most ``SCAN`` positions are looked at, so that a page costs the same however little of the feed a peer may see.
What a peer lost or never took in is restated by handle (docs/protocol/50-reconciliation.md), outside the order of the feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from connectors import envelope
from connectors.indexframe import ENTRY, MEDIA_TYPE
from hub import schema
from hub.exchange import record_digests
from hub.exchange.announced import Given

LIMIT = 10_000
LARGEST = 20_000
SCAN = 50_000
ROOM = envelope.LIMIT - envelope.LONGEST - 1  # bytes of a body; an envelope and its line feed stand before it


@dataclass(frozen=True)
class Served:
    """One page as it goes out. ``to``: read on after it; ``entries``: how many."""

    body: bytes
    to: int
    entries: int
    type: str = MEDIA_TYPE


def page(
    connection: sa.Connection,
    given: Given,
    after: int,
    limit: int = LIMIT,
    *,
    to: int | None = None,
    until: int | None = None,
) -> Served:
    """The page after position ``after``, within the caller's transaction: at most ``limit`` entries, fewer where a message could
    not hold them. It ends at ``to`` at the latest; a certificate stands at the latest position it has up to ``until``."""
    head = connection.scalar(sa.select(schema.feed_head.c.position)) or 0
    end = min(head, until) if until is not None else head
    last = min(end, after + SCAN, *(() if to is None else (to,)))  # positions have no gaps
    bind = {"after": after, "last": last, "until": end, "limit": limit, "inner": given.key.inner, "outer": given.key.outer,
            "materials": list(given.materials), "regions": list(given.regions)}  # fmt: skip
    found = connection.execute(_PAGE, bind).one()
    reached = found.latest if found.entries == limit else max(last, after)
    body = _body(given, found.body, after=after, to=reached, head=head, more=reached < end)
    if len(body) > ROOM and limit > 1:
        return page(connection, given, after, max(1, min(limit, found.entries) // 2), to=to, until=until)
    return Served(body, reached, found.entries)


def restated(connection: sa.Connection, given: Given, asked: Sequence[tuple[str, str | None]]) -> Served:
    """A page of what is announced now under each handle of ``asked``, with what the peer takes for its material: what is
    not announced at all is withdrawn. Within the caller's transaction, at whose end merges go on.

    It is recorded later than all that the feed says up to here and earlier than all that it will say, so that it counts
    against whatever the peer took in before. ``Served.to``: the head of the feed.
    """
    handles = [handle for handle, _ in asked]
    seen = connection.scalar(sa.select(schema.feed_head.c.position)) or 0
    found = record_digests.holdings(connection, given, handles)
    # From here on no merge becomes known before this page is: what has since the first look is looked at again.
    head = connection.execute(_NOW).one()
    bind = {"handles": [bytes.fromhex(handle) for handle in handles], "named": [material for _, material in asked],
            "keys": [bytes.fromhex(key) for key, _ in found.values()], "seen": seen, "head": head.position,
            "at": head.recorded_at, "materials": list(given.materials), "regions": list(given.regions),
            "inner": given.key.inner, "outer": given.key.outer}  # fmt: skip
    made = connection.execute(_RESTATED, bind).one()
    body = _body(given, made.body, after=0, to=head.position, head=head.position, more=False, restated=True)
    return Served(body, head.position, made.entries)


def _body(given: Given, entries: str | None, **members: Any) -> bytes:
    frame = {"epoch": given.epoch, "materials": given.materials, "regions": given.regions, **members}
    return b"\n".join((orjson.dumps(frame), ",".join(ENTRY).encode(), (entries or "").encode()))


# What would have to be quoted in a line of values: none has any of it.
_STRANGE = "',\"' || chr(9) || chr(10) || chr(13)"
_HANDLE = "keyed_hash('holding:' || encode({key}, 'hex'), :inner, :outer)"
_DIGEST = "keyed_hash('version:' || replace(digest::text, '-', ''), :inner, :outer)"
_SUBJECTS = """
SELECT string_agg((s ->> 'role') || ':' || encode(keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), :inner, :outer), 'hex'), ' ')
FROM json_array_elements(CASE WHEN present THEN holders END) AS s WHERE s ->> 'value' IS NOT NULL
"""


def _entries(handle: str) -> str:
    """Of the rows ``picked`` a line each, in the order of :data:`ENTRY`."""
    return f"""
SELECT count(*) AS entries, max(position) AS latest, string_agg(concat(
  encode({handle}, 'hex'), ',', material, ',', translate(region, {_STRANGE}, ''), ',',
  CASE WHEN present THEN status ELSE 'withdrawn' END, ',', valid_from, ',', valid_to, ',', encode({_DIGEST}, 'hex'), ',',
  to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), ',', position, ',', ({_SUBJECTS}), chr(10)
), '' ORDER BY position) AS body
FROM picked
"""


# A holding and what it takes to announce it; nothing outside the regions. One that names no region is of its source's: where
# silence would count, it must not be left out.
_HELD = """
SELECT k.*, p.place, (SELECT m.document::json -> 'holders' FROM mapped_row AS m WHERE m.holding = k.key AND m.id = k.mapped) AS holders
FROM holding AS k
  CROSS JOIN LATERAL (SELECT coalesce(k.region, (SELECT s.region FROM source AS s WHERE s.name = k.source)) AS place) AS p
WHERE {which} AND EXISTS (SELECT FROM unnest(cast(:regions AS text[])) AS r WHERE starts_with(p.place, r))
"""
# What left the scope, or the hub, is announced as withdrawn; what never was in it is not announced at all.
# Only the latest word on a holding counts, looked up for each candidate in turn: the limit ends the search. What follows an entry was changed or withdrawn, or was added again after that:
# the index of the feed by holding leaves out what was added, which is most of it.
_PAGE = sa.text(f"""
WITH picked AS MATERIALIZED (
  SELECT f.position, f.holding, f.material, f.recorded_at, h.place AS region, h.status, h.valid_from, h.valid_to, h.digest,
    h.holders, h.key IS NOT NULL AS present
  FROM feed AS f
    LEFT JOIN LATERAL ({_HELD.format(which="k.key = f.holding")} LIMIT 1) AS h ON true
  WHERE f.position > :after AND f.position <= :last AND f.material = ANY (cast(:materials AS text[]))
    AND f.position >= coalesce((SELECT max(l.position) FROM feed AS l
      WHERE l.holding = f.holding AND l.position <= :until AND l.change <> 'added'), 0)
    AND (f.change <> 'withdrawn' OR NOT EXISTS (SELECT FROM holding AS k WHERE k.key = f.holding))
    AND CASE WHEN h.key IS NOT NULL THEN true ELSE
      (SELECT bool_or(starts_with(coalesce(v.document ->> 'region', (SELECT s.region FROM source AS s WHERE s.name = v.source)), r))
       FROM holding_version AS v, unnest(cast(:regions AS text[])) AS r
       WHERE v.holding = f.holding AND v.document IS NOT NULL) END
  ORDER BY f.position LIMIT :limit
)
{_entries(_HANDLE.format(key="holding"))}""")
_NOW = sa.text("""
UPDATE feed_head SET recorded_at = greatest(clock_timestamp(), recorded_at + interval '1 microsecond')
RETURNING position, recorded_at
""")
_RESTATED = sa.text(f"""
WITH held AS MATERIALIZED (
  SELECT h.*, {_HANDLE.format(key="h.key")} AS handle
  FROM ({_HELD.format(which="k.key IN (SELECT unnest(cast(:keys AS bytea[])) UNION SELECT holding FROM feed WHERE position > :seen)")}) AS h
  WHERE h.material = ANY (cast(:materials AS text[]))
), picked AS (
  SELECT cast(:head AS bigint) AS position, a.handle, coalesce(h.material, a.material, (cast(:materials AS text[]))[1]) AS material,
    cast(:at AS timestamptz) AS recorded_at, h.place AS region, h.status, h.valid_from, h.valid_to, h.digest, h.holders,
    h.key IS NOT NULL AS present
  FROM unnest(cast(:handles AS bytea[]), cast(:named AS text[])) AS a (handle, material)
    LEFT JOIN held AS h ON h.handle = a.handle
)
{_entries("handle")}""")
