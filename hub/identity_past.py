"""Who was one with whom when, as it was recorded: a membership lasts from one change of clusters to another.

A change is a merge or a decision, and becomes known at its end. So a member names the change that put it where it is, and the
one row of the change (``identity_change``) says when that was: nothing has to be written twice. What ended is kept with both
its times in ``identity_past``. Changes of identity take turns (:func:`hub.identity.alone`), so they can be numbered by
counting on.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from hub import feed_head


def begin(connection: sa.Connection) -> int:
    """The number of the change under way, and ``identity_ended (identifier, cluster, state, change)`` for memberships that
    end with it. The same number until :func:`close`."""
    connection.execute(sa.text(_ENDED))
    return int(connection.scalar(sa.text(f"SELECT {_NUMBER}")) or 0)


def close(connection: sa.Connection, recorded_at: dt.datetime) -> None:
    """The change under way becomes known at ``recorded_at``; where there is none nothing is done. Called last of all, with
    the head of the feed locked, so that times follow the order of commits."""
    if connection.scalar(sa.text("SELECT to_regclass('pg_temp.identity_ended')")) is None:
        return
    for statement in (_PAST, _CHANGE, "DROP TABLE identity_ended"):
        connection.execute(sa.text(statement), {"recorded_at": recorded_at})


def announce(connection: sa.Connection, replayed: dt.datetime | None = None) -> dt.datetime:
    """The time at which a decision becomes known: now, or when a decision that is ``replayed`` did, and in any case after all
    that was recorded before. Holds the head of the feed until the commit, as the end of a merge does."""
    recorded_at: dt.datetime = feed_head.locked(connection, replayed).at
    connection.execute(sa.text("UPDATE feed_head SET recorded_at = :at"), {"at": recorded_at})
    return recorded_at.astimezone(dt.UTC)


_ENDED = """
CREATE TEMP TABLE IF NOT EXISTS identity_ended (identifier bytea, cluster bytea, state text, change bigint) ON COMMIT DROP
"""
_NUMBER = "(SELECT coalesce(max(id), 0) + 1 FROM identity_change)"
_PAST = """
INSERT INTO identity_past (identifier, cluster, state, recorded_from, recorded_to)
SELECT e.identifier, e.cluster, e.state, c.recorded_at, :recorded_at
FROM identity_ended AS e JOIN identity_change AS c ON c.id = e.change ORDER BY e.identifier
"""
_CHANGE = f"INSERT INTO identity_change (id, recorded_at) SELECT {_NUMBER}, :recorded_at"
