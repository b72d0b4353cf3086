"""What hubs say to each other about themselves (docs/protocol/10-messages.md): kinds ``peer.card`` and ``peer.check``."""

from __future__ import annotations

import datetime as dt

import msgspec
import orjson
import sqlalchemy as sa

from hub import database, signing
from hub.exchange import agreements, cards, peers
from hub.exchange.service import Answer, Context, Kind

CARD = "peer.card"
CHECK = "peer.check"
OLD = ("superseded", "declined")


class Agreed(msgspec.Struct, frozen=True):
    """How an agreement stands with one side: the latest version that counts or waits."""

    agreement: str
    provider: str
    receiver: str
    state: str
    valid_from: dt.datetime
    valid_to: dt.datetime


class Checked(msgspec.Struct, frozen=True):
    """What the hub that was asked knows of the one that asks. ``card_at``: of its card; ``keys``: kids; ``certificates``:
    fingerprints; both: those that are good now."""

    hub: str
    card_at: dt.datetime
    keys: list[str]
    certificates: list[str]
    agreements: list[Agreed]


class Nothing(msgspec.Struct, frozen=True):
    """``{}``: there is nothing to ask but the kind."""


class Taken(msgspec.Struct, frozen=True):
    """Which card of the sender is known now."""

    card_at: dt.datetime


def card(context: Context) -> Answer:
    """A peer's later card."""
    peers.take(context.connection, context.peer, context.body)
    known = peers.of(context.connection, context.peer.name)
    return Answer.of(Taken(known.card_at), keys=len(known.keys), certificates=len(known.certificates))


def check(context: Context) -> Answer:
    """How the two stand with each other, as this hub sees it. FatalError ``message-body``."""
    context.decoded(Nothing)
    peer, now = context.peer, context.now
    stand = standing(context.connection, peer.name, now)
    told = Checked(
        signing.own_name(),
        peer.card_at,
        [key.kid for key in peer.keys if cards.valid(key, now)],
        [entry.fingerprint for entry in peer.certificates if cards.valid(entry, now)],
        stand,
    )
    return Answer.of(told, agreements=len(stand))


def standing(connection: sa.Connection, peer: str, now: dt.datetime) -> list[Agreed]:
    """The agreements with ``peer``, as they are kept here; not those whose place another version has taken."""
    own = signing.own_name()
    return [
        Agreed(
            f"{row.id}/{row.version}",
            own if row.provider else peer,
            peer if row.provider else own,
            row.state,
            row.valid_from,
            row.valid_to,
        )
        for row in agreements.every(connection, peer)
        if agreements.effective(row, now) not in OLD
    ]


def introduce(peer: str) -> dt.datetime:
    """Tell ``peer`` this hub's card as it is now; when it was signed. Errors as :func:`hub.exchange.caller.ask`."""
    from hub.exchange import caller

    own = cards.own()
    caller.decoded(caller.ask(peer, CARD, orjson.dumps(own)), Taken)
    at = dt.datetime.fromisoformat(own["at"])
    with database.engine().begin() as connection:
        peers.told(connection, peer, at)
    return at


KINDS = {
    CARD: Kind(card, once=True, needs_agreement=False),
    CHECK: Kind(check, needs_agreement=False),
}
