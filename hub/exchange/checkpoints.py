"""Checkpoints: the end of a hub's chain, signed (docs/protocol/20-ledger.md). Ours go out with every message; those of peers
are kept, and are what a peer cannot take back.
"""

from __future__ import annotations

import base64
import datetime as dt
import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import signature
from connectors.envelope import PROTOCOL
from connectors.errors import FatalError
from hub import database, signing
from hub.exchange import entries, keys, peers
from hub.exchange.entries import moment
from hub.exchange.peers import Peer

TYPE = "yici-checkpoint+jws"
KIND = "ledger.checkpoint"  # of records about checkpoints of peers that cannot stand
CONTRADICTS = "checkpoint-contradicts"
FALSE = "checkpoint-false"
CHAIN_BYTES = 32
HIGHEST = 2**63 - 1  # position
FRESH = 2.0  # seconds for which a process goes by what it has read
AGAIN = 600.0  # seconds after which the same of a peer is noted again
HELD = 1000  # of what peers said, in a process
SPARSE = 1000  # positions of which, after a day, few checkpoints are left
LONGEST = 4096  # characters of a checkpoint
SIGNATURE = 86  # characters of an Ed25519 signature in base64url

log = logging.getLogger("yici.ledger")


@dataclass(frozen=True)
class Checkpoint:
    """``signature``: the compact JWS that says all the rest, and whose chain it is."""

    position: int
    chain: bytes
    at: dt.datetime
    signature: str

    def told(self) -> dict[str, Any]:
        """As messages carry it (``head``)."""
        at = moment(self.at)
        return {"position": self.position, "chain": self.chain.hex(), "at": at, "signature": self.signature}


def of(row: Any) -> Checkpoint:
    """A row of ``exchange_checkpoint``."""
    return Checkpoint(row.position, row.chain, row.signed_at.astimezone(dt.UTC), row.signature)


def made(hub: str, position: int, chain: bytes, at: dt.datetime, key: OKPKey) -> Checkpoint:
    """A checkpoint of ``hub``, signed."""
    said = {"protocol": PROTOCOL, "hub": hub, "position": position, "chain": chain.hex(), "at": moment(at)}
    return Checkpoint(position, chain, at, signature.sign(orjson.dumps(said), key, TYPE))


def opened(signed: str, hub: str, known: Sequence[OKPKey]) -> Checkpoint | None:
    """What ``signed`` says, when it is a checkpoint of ``hub`` that one of ``known`` signed."""
    try:
        signature.verify(signed.encode(), known, hub, TYPE)
        return read(signed, hub)
    except (FatalError, ValueError):
        return None


def read(signed: str, hub: str) -> Checkpoint:
    """The same, whoever signed it. ValueError when it is no checkpoint of ``hub``."""
    try:
        said = orjson.loads(_part(signed, 1))
        position, chain, at = said["position"], bytes.fromhex(said["chain"]), dt.datetime.fromisoformat(said["at"])
        found = Checkpoint(position, chain, at.astimezone(dt.UTC), signed)
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError("not a checkpoint") from error
    if (said.get("protocol"), said.get("hub"), type(position)) != (PROTOCOL, hub, int):
        raise ValueError("another's")
    if not 0 < position <= HIGHEST or len(chain) != CHAIN_BYTES or at.tzinfo is None:
        raise ValueError("not a checkpoint")
    return found


def sign(connection: sa.Connection, position: int, chain: bytes) -> None:
    """Sign ``position``, in the transaction that holds the end of the chain, unless that was done.

    Nothing is signed before what was signed last: there the chain was put back, and ``yici ledger verify`` says so.
    """
    hub = signing.own_name()
    last = connection.execute(_LAST, {"hub": hub}).first()
    if position <= (last.position if last else 0):
        if last and position < last.position:
            log.error("ledger-put-back position=%d signed=%d", position, last.position)
        return
    at = dt.datetime.now(dt.UTC)
    if last is not None:  # whatever the clock does, a later position is not signed earlier
        at = max(at, last.signed_at.astimezone(dt.UTC))
    connection.execute(_OWN, _row(hub, made(hub, position, chain, at, keys.own().signing(at))))


def head(connection: sa.Connection | None = None) -> dict[str, Any] | None:
    """The latest checkpoint of this hub as messages carry it, None before the first; up to :data:`FRESH` seconds old.

    ``connection``: to read it with, where the caller has one. One thread reads; the others go by what was known.
    """
    engine = connection.engine if connection is not None else database.engine()
    place = str(engine.url), signing.own_name()
    known = _known.get(place)
    if known is not None and time.monotonic() - known[0] < FRESH:
        return known[1]
    if not _reading.acquire(blocking=known is None):
        return known[1] if known else None
    try:
        if connection is not None:
            value = _latest(connection)
        else:
            with engine.connect() as own:
                value = _latest(own)
        _known[place] = (time.monotonic(), value)
        return value
    finally:
        _reading.release()


def witness(connection: sa.Connection, peer: Peer, told: Mapping[str, Any] | None) -> bool:
    """Keep the checkpoint that a message of ``peer`` carried (``head``), in the caller's transaction; whether it may stand.

    One that is not what the peer's key signed is noted in the ledger as ``checkpoint-false`` (whole only where it has the form of
    a checkpoint and can hold no other words, else its digest), one that cannot be beside
    those kept as ``checkpoint-contradicts``: another chain at the same position, or a later position signed earlier. One
    under a key that is not known any more is passed over. Waits for nobody.
    """
    if told is None:
        return True
    place = str(connection.engine.url), peer.name, repr(told)
    known_at, stands = _heard.get(place, (0.0, None))
    if stands or (stands is False and time.monotonic() - known_at < AGAIN):
        return stands
    signed = str(told.get("signature"))
    try:
        if len(signed) > LONGEST:
            raise ValueError("no checkpoint is so long")
        found = read(signed, peer.name)
        known = peers.keys_at(peer, found.at)
        if orjson.loads(_part(signed, 0)).get("kid") not in [key.thumbprint() for key in known]:
            return False
        if opened(signed, peer.name, known) is None or any(told[name] != value for name, value in _plain(found)):
            raise ValueError("not what was signed")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        if _formed(signed, peer):
            return _noted(connection, place, FALSE, {"told": signed})
        data = signed.encode("utf-8", "replace")
        return _noted(connection, place, FALSE, {"digest": sha256(data).hexdigest(), "length": len(signed)})
    for row in connection.execute(_BESIDE, {"hub": peer.name, "position": found.position}):
        kept = of(row)
        if kept.position == found.position and kept.chain == found.chain:
            _hear(connection, place, True)
            return True
        if kept.position == found.position or (kept.at - found.at) * (kept.position - found.position) < dt.timedelta():
            return _noted(connection, place, CONTRADICTS, {"told": found.told(), "kept": kept.told()})
    connection.execute(_PEERS, {**_row(peer.name, found), "lock": f"checkpoint {peer.name}"})
    return True


def thin(connection: sa.Connection) -> int:
    """Of checkpoints older than a day leave the last of every :data:`SPARSE` positions and of every month, where retention
    can begin; returns how many went."""
    return connection.execute(_THIN, {"sparse": SPARSE}).rowcount


def _formed(signed: str, peer: Peer) -> bool:
    """Whether ``signed`` is written as this protocol writes a checkpoint of ``peer``, and holds nothing beside."""
    try:
        read(signed, peer.name)
        head, payload, end = signed.split(".")
        said, header = orjson.loads(_part(signed, 1)), orjson.loads(_part(signed, 0))
        plain = all(orjson.dumps(value) == _part(signed, number) for number, value in ((1, said), (0, header)))
    except (ValueError, TypeError):
        return False
    return (
        plain
        and len(end) == SIGNATURE
        and _BASE64URL.fullmatch(head + payload + end) is not None
        and said.keys() == {"protocol", "hub", "position", "chain", "at"}
        and header.keys() == {"alg", "typ", "kid"}
        and (header["alg"], header["typ"]) == (signature.ALGORITHM, TYPE)
        and header["kid"] in [key.thumbprint() for key in peers.keys_ever(peer)]
    )


def _plain(found: Checkpoint) -> list[tuple[str, Any]]:
    """What a ``head`` repeats of its signature."""
    at = orjson.loads(_part(found.signature, 1))["at"]
    return [("position", found.position), ("chain", found.chain.hex()), ("at", at)]


def _part(signed: str, number: int) -> bytes:
    part = signed.split(".")[number]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _row(hub: str, one: Checkpoint) -> dict[str, Any]:
    return {"hub": hub, "position": one.position, "chain": one.chain, "at": one.at, "signature": one.signature}


def _latest(connection: sa.Connection) -> dict[str, Any] | None:
    row = connection.execute(_LAST, {"hub": signing.own_name()}).first()
    return of(row).told() if row else None


def _noted(connection: sa.Connection, place: _Place, outcome: str, detail: dict[str, Any]) -> bool:
    """Into the ledger; False."""
    peer = place[1]
    log.error("%s peer=%s", outcome, peer)
    entries.record(connection, peer=peer, direction="noted", kind=KIND, outcome=outcome, detail=detail)
    _hear(connection, place, False)
    return False


def _hear(connection: sa.Connection, place: _Place, stands: bool) -> None:
    """Once the caller's transaction has kept what was found, this process knows."""

    def committed(connection: sa.Connection) -> None:
        if len(_heard) >= HELD:
            _heard.clear()
        _heard[place] = time.monotonic(), stands

    sa.event.listen(connection, "commit", committed, once=True)


_BASE64URL = re.compile(r"[\w-]+", re.ASCII)
_Place = tuple[str, str, str]  # the store, the peer, what it told
_heard: dict[_Place, tuple[float, bool]] = {}
_known: dict[tuple[str, str], tuple[float, dict[str, Any] | None]] = {}
_reading = threading.Lock()

_COLUMNS = "position, chain, signed_at, signature"
_LAST = sa.text(f"SELECT {_COLUMNS} FROM exchange_checkpoint WHERE hub = :hub ORDER BY position DESC LIMIT 1")
_BESIDE = sa.text(f"""
(SELECT {_COLUMNS} FROM exchange_checkpoint WHERE hub = :hub AND position <= :position ORDER BY position DESC LIMIT 1)
UNION ALL (SELECT {_COLUMNS} FROM exchange_checkpoint WHERE hub = :hub AND position > :position ORDER BY position LIMIT 1)
""")
_OWN = sa.text(f"INSERT INTO exchange_checkpoint (hub, {_COLUMNS}) VALUES (:hub, :position, :chain, :at, :signature)")
# Who would wait for another transaction that keeps the same leaves it to that one.
_PEERS = sa.text(f"""
INSERT INTO exchange_checkpoint (hub, {_COLUMNS})
SELECT :hub, :position, :chain, :at, :signature WHERE pg_try_advisory_xact_lock(hashtextextended(:lock, :position))
ON CONFLICT DO NOTHING
""")
_THIN = sa.text("""
DELETE FROM exchange_checkpoint AS c WHERE c.signed_at < now() - interval '1 day' AND EXISTS (
  SELECT FROM exchange_checkpoint AS l
  WHERE l.hub = c.hub AND l.position > c.position AND l.position < (c.position / :sparse + 1) * :sparse
    AND date_trunc('month', l.signed_at AT TIME ZONE 'UTC') = date_trunc('month', c.signed_at AT TIME ZONE 'UTC'))
""")
