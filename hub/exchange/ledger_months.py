"""The ledger of the exchange by months: an old month goes whole, and what is left begins at a signed checkpoint.

Places are given in the order of chaining, months go by the time of recording: around the end of a month the two differ by
the few records that committed late. These stay, with all that follows the checkpoint (the anchor) from which
``yici ledger verify`` goes on.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from hub import partitions, signing
from hub.exchange import checkpoints

TABLES = ("exchange_record", "exchange_chain")
SHORTEST = 36  # months: Order 809 Art 29


def anchor(connection: sa.Connection, month: dt.date, before: dt.date) -> int | None:
    """The position of the last checkpoint that was signed before ``before`` and lies before all that was recorded after
    ``month``; None: there is none."""
    bind = {"hub": signing.own_name(), "end": partitions.following(month), "before": before}
    found: int | None = connection.scalar(_ANCHOR, bind)
    return found


def drop(connection: sa.Connection, month: dt.date, before: dt.date) -> None:
    """Drop ``month`` up to its anchor, in the caller's transaction; nothing where there is none. RetriableError
    ``partitions-busy``."""
    checkpoints.thin(connection)  # now, so that the anchor is none that goes later
    last = anchor(connection, month, before)
    if last is None:
        return
    later = f"SELECT record FROM exchange_chain WHERE position > {last} AND recorded_at < '{partitions.following(month)} 00:00+00'"
    waiting = "SELECT record FROM exchange_pending"
    partitions.drop(connection, "exchange_record", month, f"k.id = ANY(ARRAY({later} UNION ALL {waiting}))")
    partitions.drop(connection, "exchange_chain", month, f"k.position > {last}")
    connection.execute(_FORGET, {"hub": signing.own_name(), "last": last, "end": partitions.following(month)})


_ANCHOR = sa.text("""
SELECT max(position) FROM exchange_checkpoint
WHERE hub = :hub AND signed_at < CAST(:before AS date)::timestamp AT TIME ZONE 'UTC' AND position < coalesce(
  (SELECT min(position) FROM exchange_chain WHERE recorded_at >= CAST(:end AS date)::timestamp AT TIME ZONE 'UTC'),
  (SELECT position + 1 FROM exchange_head))
""")
# Of each peer the last one stays, whenever it was signed.
_FORGET = sa.text("""
DELETE FROM exchange_checkpoint AS k WHERE (k.hub = :hub AND k.position < :last)
  OR (k.hub <> :hub AND k.signed_at < CAST(:end AS date)::timestamp AT TIME ZONE 'UTC'
    AND EXISTS (SELECT FROM exchange_checkpoint AS l WHERE l.hub = k.hub AND l.position > k.position))
""")
