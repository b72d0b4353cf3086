"""Whether a peer is called at all: one that failed again and again rests, longer each time, and one call tries it then."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from connectors.errors import RetriableError
from hub.exchange.peers import Peer

ENOUGH = 3  # failures in a row
SECONDS = 5.0  # of the first rest; each is twice the one before
LONGEST = 600.0
SPREAD = 0.25  # by so much of itself a rest is longer or shorter
CALL = 120.0  # that the one which tries may take
HEARD = dt.timedelta(minutes=1)  # how exactly it is kept when a peer last answered


def permit(connection: sa.Connection, peer: Peer, now: dt.datetime, seconds: float) -> None:
    """RetriableError ``partner-resting`` while it rests. After that one call, which takes ``seconds``, is let through.

    A rest longer than any that begins now could be was begun by a clock that has been put back: it is over.
    """
    if peer.failures < ENOUGH or peer.rests_until is None:
        return
    rest = (1 + SPREAD) * min(LONGEST, SECONDS * 2 ** min(peer.failures - ENOUGH, 30))
    beyond = now + dt.timedelta(seconds=max(rest, CALL))
    bind = {"name": peer.name, "now": now, "next": now + dt.timedelta(seconds=seconds), "beyond": beyond}
    if now < peer.rests_until <= beyond or connection.execute(_TRIED, bind).first() is None:
        shown = peer.rests_until.astimezone(dt.UTC).isoformat(timespec="seconds")
        raise RetriableError("partner-resting", peer=peer.name, until=shown, failures=peer.failures)


def failed(connection: sa.Connection, peer: Peer, now: dt.datetime) -> None:
    """Nobody answered, or not as that peer does."""
    connection.execute(
        _FAILED, {"name": peer.name, "now": now, "enough": ENOUGH, "seconds": SECONDS, "longest": LONGEST}
    )


def answered(connection: sa.Connection, peer: Peer, now: dt.datetime) -> None:
    """It did. Written seldom: it would be a row that all calls write."""
    if peer.failures or peer.answered_at is None or peer.answered_at < now - HEARD:
        connection.execute(_ANSWERED, {"name": peer.name, "now": now})


_TRIED = sa.text("""
UPDATE exchange_peer SET rests_until = :next WHERE name = :name AND (rests_until <= :now OR rests_until > :beyond)
RETURNING name
""")
# Not all peers that fail together are tried together again.
_FAILED = sa.text(f"""
UPDATE exchange_peer SET failures = failures + 1, rests_until = CASE WHEN failures + 1 >= :enough THEN
  CAST(:now AS timestamptz) + make_interval(secs => ({1 - SPREAD} + random() * {2 * SPREAD})
    * least(:longest, :seconds * power(2, least(failures + 1 - :enough, 30)))) END
WHERE name = :name
""")
_ANSWERED = sa.text("""
UPDATE exchange_peer SET failures = 0, rests_until = NULL, answered_at = greatest(answered_at, :now) WHERE name = :name
""")
