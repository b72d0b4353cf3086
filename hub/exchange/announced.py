"""What is announced between two hubs under an agreement: who tells whom, of what, in which epoch, under which key.

The one place that reconciliation and corrections ask; how the feed itself travels is nobody else's business.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from connectors.channel import Agreed
from connectors.errors import UsageError
from hub.exchange import epochs
from hub.home import KeyedHash

if TYPE_CHECKING:
    from hub.exchange.agreements import Agreement


@dataclass(frozen=True)
class Given:
    """What this hub announces under an agreement. ``regions``: prefixes of division codes; ``key``: of the epoch, under which
    every id is made."""

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


def agreed(agreement: Agreement) -> Agreed:
    """What the other hub may announce to this one under ``agreement`` now, as the model is here."""
    return Agreed(agreement.reference, agreement.materials("index"), agreement.terms.regions)


def given(connection: sa.Connection, agreement: Agreement) -> Given:
    """What is announced under ``agreement`` now; begins a new epoch where the last one is over.

    UsageError ``mode-not-agreed``. FatalError as :func:`hub.exchange.epochs.current`.
    """
    epoch = epochs.current(connection, agreement, dt.datetime.now(dt.UTC))
    return Given(epoch.scope.materials, epoch.scope.regions, epoch.name, KeyedHash(epoch.key))


def received(connection: sa.Connection, agreement: Agreement) -> Received:
    """How far this hub has read. UsageError ``announced-unread`` when it has read nothing under that agreement yet."""
    row = connection.execute(_READ, {"agreement": str(agreement.id)}).first()
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
WHERE cursor ->> 'agreement' = :agreement AND cursor ->> 'epoch' <> '' AND cursor ->> 'position' ~ '^[0-9]{1,18}$'
ORDER BY last_success_at DESC NULLS LAST LIMIT 1
""")
