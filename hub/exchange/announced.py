"""What is announced between two hubs under an agreement: who tells whom, of what, in which epoch, under which key.

The one place that reconciliation and corrections ask; how the feed itself travels is nobody else's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import peers, signing
from hub.home import KeyedHash

if TYPE_CHECKING:
    from hub.exchange.agreements import Agreement


@dataclass(frozen=True)
class Given:
    """What this hub, ``hub`` of ``region``, announces to ``peer``. ``regions``: prefixes of division codes; ``key``: of the
    epoch, under which every id is made."""

    peer: str
    hub: str
    region: str
    materials: tuple[str, ...]
    regions: tuple[str, ...]
    epoch: str
    key: KeyedHash


@dataclass(frozen=True)
class Received:
    """What this hub has read of ``peer``'s feed through ``source``: up to ``position`` in ``epoch``."""

    peer: str
    source: str
    epoch: str
    position: int


def given(connection: sa.Connection, agreement: Agreement) -> Given:
    """What is announced under ``agreement`` now; begins a new epoch where the scope has changed, as a page of the feed would.

    UsageError ``announced-to-nobody`` when the peer may not read the index. FatalError as :func:`hub.peers.epoch_key`.
    """
    publisher = signing.publisher()
    peer = peers.of(connection, agreement.peer)
    if peer is None:
        raise UsageError("announced-to-nobody", peer=agreement.peer)
    scope = peers.scope(peer, publisher)
    peer = peers.up_to_date(connection, peer, scope)
    key = KeyedHash(peers.epoch_key(connection, peer))
    return Given(agreement.peer, publisher.hub, publisher.region, scope.materials, scope.regions, peer.epoch, key)


def received(connection: sa.Connection, agreement: Agreement) -> Received:
    """How far this hub has read. UsageError ``announced-unread`` when it has read nothing of that peer yet."""
    row = connection.execute(_READ, {"peer": agreement.peer}).first()
    if row is None:
        raise UsageError("announced-unread", peer=agreement.peer)
    return Received(agreement.peer, row.name, row.epoch, int(row.position))


def source(connection: sa.Connection, peer: str) -> str | None:
    """The source that reads the feed of ``peer``, if any did."""
    found: str | None = connection.scalar(_SOURCE, {"peer": peer})
    return found


_SOURCE = sa.text("SELECT name FROM source WHERE hub = :peer ORDER BY last_success_at DESC NULLS LAST LIMIT 1")
_READ = sa.text("""
SELECT name, cursor ->> 'epoch' AS epoch, cursor ->> 'position' AS position FROM source
WHERE hub = :peer AND cursor ->> 'epoch' <> '' AND cursor ->> 'position' ~ '^[0-9]{1,18}$'
ORDER BY last_success_at DESC NULLS LAST LIMIT 1
""")
