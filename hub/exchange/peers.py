"""Peers: the hubs that this one exchanges with, and how they are known (docs/protocol/10-messages.md).

A peer is added by hand, from a card that came by a channel of its own. Later cards come as messages (kind ``peer.card``),
signed with a key of the card before.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from joserfc.jwk import OKPKey
from sqlalchemy.dialects.postgresql import insert

from connectors import signature
from connectors.errors import FatalError, UsageError
from hub import signing
from hub.exchange import cards, keys
from hub.exchange.cards import Card, Certificate, Key
from hub.schema_exchange import exchange_peer

MARGIN = dt.timedelta(minutes=20)  # a certificate is taken so much before and after its time: clocks differ


@dataclass(frozen=True)
class Peer:
    """One hub. ``keys`` and ``certificates``: all it ever had, those that ended too. ``told_at``: which card of this hub it
    has taken. ``failures``: calls that found nobody, in a row; not called before ``rests_until``."""

    name: str
    title: str
    region: str
    addresses: tuple[str, ...]
    keys: tuple[Key, ...]
    certificates: tuple[Certificate, ...]
    card_at: dt.datetime
    added_at: dt.datetime
    removed_at: dt.datetime | None
    told_at: dt.datetime | None
    failures: int
    answered_at: dt.datetime | None
    rests_until: dt.datetime | None

    @property
    def removed(self) -> bool:
        return self.removed_at is not None


class Pinned(NamedTuple):
    """A certificate, and which peer shows it."""

    peer: str
    fingerprint: str
    pem: str


def card() -> dict[str, Any]:
    """This hub's own card, signed now. FatalError as :func:`hub.signing.publisher`."""
    return cards.own()


def own_key(moment: dt.datetime | None = None) -> OKPKey:
    """The key that this hub signs with."""
    return keys.own().signing(moment or dt.datetime.now(dt.UTC))


def find(connection: sa.Connection, name: str) -> Peer | None:
    """The hub ``name``, also one that was removed."""
    row = connection.execute(_ONE, {"name": name}).first()
    return _peer(row) if row else None


def of(connection: sa.Connection, name: str) -> Peer:
    """UsageError ``peer-unknown`` when there is none, or it was removed."""
    peer = find(connection, name)
    if peer is None or peer.removed:
        raise UsageError("peer-unknown", peer=name if signing.NAME.fullmatch(name) else "…")
    return peer


def every(connection: sa.Connection, *, removed: bool = False) -> list[Peer]:
    """All peers by name; ``removed``: with those that were."""
    query = sa.select(exchange_peer).order_by(exchange_peer.c.name)
    if not removed:
        query = query.where(exchange_peer.c.removed_at.is_(None))
    return [_peer(row) for row in connection.execute(query)]


def keys_at(peer: Peer, moment: dt.datetime) -> list[OKPKey]:
    """The peer's keys that were good at ``moment``."""
    return [imported(key.public_key) for key in peer.keys if cards.valid(key, moment)]


def keys_ever(peer: Peer) -> list[OKPKey]:
    """All keys it ever had."""
    return [imported(key.public_key) for key in peer.keys]


def fingerprints(peer: Peer, moment: dt.datetime) -> list[str]:
    """Of its certificates that are good at ``moment``, or nearly."""
    return [entry.fingerprint for entry in _shown(peer, moment)]


def pems(peer: Peer, moment: dt.datetime) -> list[str]:
    """The same certificates."""
    return [entry.pem for entry in _shown(peer, moment)]


def pinned(connection: sa.Connection, moment: dt.datetime) -> list[Pinned]:
    """Every certificate of a peer that this hub lets in at ``moment``."""
    query = sa.select(exchange_peer.c.name, exchange_peer.c.certificates).where(exchange_peer.c.removed_at.is_(None))
    return [
        Pinned(row.name, entry.fingerprint, entry.pem)
        for row in connection.execute(query.order_by(exchange_peer.c.name))
        for entry in msgspec.convert(row.certificates, tuple[Certificate, ...])
        if _near(entry, moment)
    ]


def add(connection: sa.Connection, text: bytes, kid: str | None = None, *, replace: bool = False) -> Peer:
    """Make the hub of the card ``text`` a peer; one that was removed comes back. ``replace``: in place of what is known of it.

    ``kid``: the key that is known to be that hub's, which has to have signed the card; None where the card itself is known to
    be. FatalError ``card-invalid``, ``card-signature``, ``card-old`` where a later one was taken before, by hand or by message;
    UsageError ``peer-self``, ``peer-known-already``, ``peer-kid``.
    """
    told = cards.read(text)
    if kid is not None and cards.signer(told) != kid:
        raise UsageError("peer-kid", kid=cards.signer(told))
    cards.verify(text, told, told.keys)
    if told.hub == signing.publisher().hub:
        raise UsageError("peer-self", peer=told.hub)
    known = find(connection, told.hub)
    if known is not None and not known.removed and not replace:
        raise UsageError("peer-known-already", peer=told.hub)
    if known is not None and told.at < known.card_at:
        raise FatalError("card-old", peer=told.hub)
    values = {**_values(told, known), "removed_at": None, "told_at": None, "failures": 0, "rests_until": None}
    if known is None or known.removed:
        values["added_at"] = dt.datetime.now(dt.UTC)
    statement = insert(exchange_peer).values(name=told.hub, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
    return of(connection, told.hub)


def take(connection: sa.Connection, peer: Peer, text: bytes) -> bool:
    """Take a later card of ``peer``; False when it is the one that is known.

    FatalError ``card-invalid``, ``card-foreign`` (another hub's, or of another region: that is changed by people),
    ``card-old``, ``card-signature``.
    """
    told = cards.read(text)
    if (told.hub, told.region) != (peer.name, peer.region):
        raise FatalError("card-foreign", peer=peer.name)
    cards.verify(text, told, peer.keys)
    row = connection.execute(_ONE_LOCKED, {"name": peer.name}).one()
    if told.at == row.card_at:
        return False
    if told.at < row.card_at:
        raise FatalError("card-old", peer=peer.name)
    connection.execute(
        sa.update(exchange_peer).where(exchange_peer.c.name == peer.name).values(**_values(told, _peer(row)))
    )
    return True


def remove(connection: sa.Connection, name: str) -> None:
    """From now on nothing is taken from it nor asked of it; its keys stay, for what it said. UsageError ``peer-unknown``."""
    peer = of(connection, name)
    gone = sa.update(exchange_peer).where(exchange_peer.c.name == peer.name)
    connection.execute(gone.values(removed_at=dt.datetime.now(dt.UTC)))


def told(connection: sa.Connection, name: str, at: dt.datetime) -> None:
    """The peer has taken this hub's card of ``at``."""
    connection.execute(sa.update(exchange_peer).where(exchange_peer.c.name == name).values(told_at=at))


@functools.lru_cache(maxsize=1024)
def imported(public_key: str) -> OKPKey:
    """The key written as base64url of its 32 bytes."""
    return signature.public_key(public_key)


def _shown(peer: Peer, moment: dt.datetime) -> list[Certificate]:
    return [entry for entry in peer.certificates if _near(entry, moment)]


def _near(entry: Certificate, moment: dt.datetime) -> bool:
    return entry.since - MARGIN <= moment and (entry.until is None or moment < entry.until + MARGIN)


def _values(told: Card, known: Peer | None) -> dict[str, Any]:
    """Columns of ``told``. A key or certificate it no longer names ended with it at the latest."""
    return {
        "title": told.title,
        "region": told.region,
        "addresses": list(told.addresses),
        "keys": msgspec.to_builtins(_merged(told.keys, known.keys if known else (), told.at)),
        "certificates": msgspec.to_builtins(_merged(told.certificates, known.certificates if known else (), told.at)),
        "card_at": told.at,
    }


def _merged(new: Sequence[Any], old: Sequence[Any], at: dt.datetime) -> list[Any]:
    named = {_name(entry) for entry in new}
    ended = [
        entry if entry.until is not None and entry.until <= at else msgspec.structs.replace(entry, until=at)
        for entry in old
        if _name(entry) not in named
    ]
    return [*ended, *new]


def _name(entry: Key | Certificate) -> str:
    return entry.kid if isinstance(entry, Key) else entry.fingerprint


def _peer(row: sa.Row[Any]) -> Peer:
    values: dict[str, Any] = dict(row._mapping)
    values["addresses"] = tuple(values["addresses"])
    values["keys"] = msgspec.convert(values["keys"], tuple[Key, ...])
    values["certificates"] = msgspec.convert(values["certificates"], tuple[Certificate, ...])
    return Peer(**values)


_ONE = sa.select(exchange_peer).where(exchange_peer.c.name == sa.bindparam("name"))
_ONE_LOCKED = _ONE.with_for_update()
