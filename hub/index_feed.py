"""The index feed this hub publishes (docs/protocol.md): one signed page of what it holds, in ids only one peer can make.

One set-based statement a page: the feed from a position on, each holding once, at its latest position; ids are made in
SQL. At most ``SCAN`` positions are looked at, so that a page costs the same however little of the feed a peer may see.
What a peer lost or never took in is restated by handle (docs/protocol/50-reconciliation.md), outside the order of the feed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.signature import PROTOCOL
from hub import peers, schema, signing
from hub.exchange import record_digests
from hub.exchange.announced import Given
from hub.home import KeyedHash
from hub.peers import Peer

LIMIT = 2000
LARGEST = 10_000
SCAN = 50_000


@dataclass(frozen=True)
class Served:
    """One page as it goes out. ``to``: read on after it; ``entries``: how many."""

    body: str
    to: int
    entries: int


def page(connection: sa.Connection, peer: Peer, after: int, limit: int = LIMIT, until: int | None = None) -> Served:
    """The page of ``peer`` after position ``after``, at most ``limit`` entries, none beyond ``until``; recorded.

    Within the caller's transaction. FatalError of :func:`hub.signing.publisher` or of keys that cannot be read.
    """
    publisher = signing.publisher()
    scope = peers.scope(peer, publisher)
    peer = peers.up_to_date(connection, peer, scope)
    key = KeyedHash(peers.epoch_key(connection, peer))
    head = connection.scalar(sa.select(schema.feed_head.c.position)) or 0
    end = min(head, until) if until is not None else head
    last = min(end, after + SCAN)  # positions have no gaps
    bind = {"after": after, "last": last, "until": end, "limit": limit, "inner": key.inner, "outer": key.outer,
            "materials": list(scope.materials), "regions": list(scope.regions)}  # fmt: skip
    found = connection.execute(_PAGE, bind).one()
    to = found.latest if found.entries == limit else max(last, after)
    given = Given(peer.client, publisher.hub, publisher.region, scope.materials, scope.regions, peer.epoch, key)
    body = _signed(given, found.body, after=after, to=to, head=head, more=to < end)
    read = {"peer": peer.client, "epoch": peer.epoch, "after": after, "up_to": to, "entries": found.entries}
    connection.execute(sa.insert(schema.index_read), [read])
    return Served(body, to, found.entries)


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
    body = _signed(given, made.body, after=0, to=head.position, head=head.position, more=False, restated=True)
    return Served(body, head.position, made.entries)


def _signed(given: Given, entries: str, **members: Any) -> str:
    frame = {
        "protocol": PROTOCOL,
        "hub": given.hub,
        "region": given.region,
        "peer": given.peer,
        "epoch": given.epoch,
        "materials": given.materials,
        "regions": given.regions,
        **members,
        "issued_at": dt.datetime.now(dt.UTC),
        "entries": orjson.Fragment(entries),
    }
    return signing.sign(orjson.dumps(frame, option=orjson.OPT_UTC_Z))


_ENTRIES = """
SELECT count(*) AS entries, max(position) AS latest, coalesce(json_agg(json_build_object(
  'handle', encode({handle}, 'hex'),
  'material', material,
  'region', region,
  'status', CASE WHEN present THEN status ELSE 'withdrawn' END,
  'valid_from', valid_from,
  'valid_to', valid_to,
  'digest', encode(keyed_hash('version:' || replace(digest::text, '-', ''), :inner, :outer), 'hex'),
  'recorded_at', to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  'position', position,
  'subjects', coalesce((
    SELECT json_agg(json_build_object(
      'role', s ->> 'role',
      'id', encode(keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), :inner, :outer), 'hex')))
    FROM json_array_elements(CASE WHEN present THEN holders END) AS s WHERE s ->> 'value' IS NOT NULL), '[]')
) ORDER BY position), '[]')::text AS body
FROM picked
"""
_HANDLE = "keyed_hash('holding:' || encode({key}, 'hex'), :inner, :outer)"
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
{_ENTRIES.format(handle=_HANDLE.format(key="holding"))}""")
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
{_ENTRIES.format(handle="handle")}""")
