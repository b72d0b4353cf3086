"""The index feed this hub publishes (docs/protocol.md): one signed page of what it holds, in ids only one peer can make.

One set-based statement a page: the feed from a position on, each holding once, at its latest position; ids are made in
SQL. At most ``SCAN`` positions are looked at, so that a page costs the same however little of the feed a peer may see.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import orjson
import sqlalchemy as sa

from connectors.signature import PROTOCOL
from hub import peers, schema, signing
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
    frame = {
        "protocol": PROTOCOL,
        "hub": publisher.hub,
        "region": publisher.region,
        "peer": peer.client,
        "epoch": peer.epoch,
        "materials": scope.materials,
        "regions": scope.regions,
        "after": after,
        "to": to,
        "head": head,
        "more": to < end,
        "issued_at": dt.datetime.now(dt.UTC),
        "entries": orjson.Fragment(found.body),
    }
    body = signing.sign(orjson.dumps(frame, option=orjson.OPT_UTC_Z))
    read = {"peer": peer.client, "epoch": peer.epoch, "after": after, "up_to": to, "entries": found.entries}
    connection.execute(sa.insert(schema.index_read), [read])
    return Served(body, to, found.entries)


# A holding that names no region is of its source's: where silence would count, it must not be left out.
# What left the scope, or the hub, is announced as withdrawn; what never was in it is not announced at all.
# Only the latest word on a holding counts, looked up for each candidate in turn: the limit ends the search. What follows an entry was changed or withdrawn, or was added again after that:
# the index of the feed by holding leaves out what was added, which is most of it.
_PAGE = sa.text("""
WITH picked AS MATERIALIZED (
  SELECT f.position, f.holding, f.material, f.recorded_at, h.place AS region, h.status, h.valid_from, h.valid_to, h.digest,
    h.holders, h.key IS NOT NULL AS present
  FROM feed AS f
    LEFT JOIN LATERAL (
      SELECT k.*, p.place, (SELECT m.document::json -> 'holders' FROM mapped_row AS m WHERE m.holding = k.key AND m.id = k.mapped) AS holders
      FROM holding AS k
        CROSS JOIN LATERAL (SELECT coalesce(k.region, (SELECT s.region FROM source AS s WHERE s.name = k.source)) AS place) AS p
      WHERE k.key = f.holding
        AND EXISTS (SELECT FROM unnest(cast(:regions AS text[])) AS r WHERE starts_with(p.place, r)) LIMIT 1
    ) AS h ON true
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
SELECT count(*) AS entries, max(position) AS latest, coalesce(json_agg(json_build_object(
  'handle', encode(keyed_hash('holding:' || encode(holding, 'hex'), :inner, :outer), 'hex'),
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
""")
