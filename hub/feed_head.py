"""The head of the feed: the last position given out and the time of the last merge, in one row that is locked to the commit."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from connectors.errors import FatalError


def locked(connection: sa.Connection, replayed: dt.datetime | None = None) -> sa.Row:
    """``position``, and ``at``: now, or when what is ``replayed`` became known, and in any case after all before. Nobody else
    takes positions or times before the transaction ends. FatalError ``feed-head-lost`` when somebody took the row away."""
    head = connection.execute(sa.text(_LOCKED), {"replayed": replayed}).first()
    if head is None:
        raise FatalError("feed-head-lost")
    return head


def mend(connection: sa.Connection) -> bool:
    """Make the row anew where it is lost; whether it was. Where retention left no entry of the feed, what peers have read
    stands in for the last position."""
    return bool(connection.execute(sa.text(_MENDED)).rowcount)


_LOCKED = """
SELECT position, greatest(coalesce(CAST(:replayed AS timestamptz), clock_timestamp()), recorded_at + interval '1 microsecond') AS at
FROM feed_head FOR UPDATE
"""
_MENDED = """
INSERT INTO feed_head (position, recorded_at)
SELECT coalesce((SELECT max(position) FROM feed), (SELECT max(position) FROM index_position), 0),
  coalesce(greatest((SELECT max(recorded_at) FROM feed), (SELECT max(recorded_at) FROM batch WHERE state = 'merged'),
    (SELECT max(recorded_at) FROM identity_change)), '-infinity')
WHERE NOT EXISTS (SELECT FROM feed_head)
"""
