"""Peers: which hub may read the index of this one, of which materials and regions, until when. Default deny.

A peer's ids are keyed with a key agreed with it alone, in epochs (docs/protocol.md). An epoch stands for one key and one
scope: when either changes, a new one begins, and the peer forgets what it read in the old one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue, client_secrets, database, home, index_keys, schema, signing
from hub.home import KEY_BYTES
from hub.signing import Publisher
from mappings import model

EPOCH = "%Y%m%dT%H%M%SZ"  # sorts as text; the digest of the scope follows
_table = schema.peer


@dataclass(frozen=True)
class Peer:
    """One agreement. ``regions``: prefixes of division codes, empty for all of the hub's own. ``valid_to`` None: until
    it is revoked. ``read_at``, ``position``: its last page."""

    client: str
    name: str
    materials: tuple[str, ...]
    regions: tuple[str, ...]
    epoch: str
    created_at: dt.datetime
    valid_to: dt.datetime | None
    read_at: dt.datetime | None = None
    position: int | None = None

    def in_force(self, now: dt.datetime) -> bool:
        return self.valid_to is None or now < self.valid_to


@dataclass(frozen=True)
class Granted:
    """What the partner is told, once, by a channel of its own. ``key`` is the agreed key."""

    client: str
    secret: str
    key: bytes
    publisher: Publisher


@dataclass(frozen=True)
class Scope:
    """What is announced to a peer: of the materials it was granted those that may be, within prefixes of regions."""

    materials: tuple[str, ...]
    regions: tuple[str, ...]

    def digest(self) -> str:
        return hashlib.sha256(json.dumps([sorted(self.materials), sorted(self.regions)]).encode()).hexdigest()[:8]


def grant(
    client: str,
    name: str,
    materials: Sequence[str],
    regions: Sequence[str] = (),
    valid_to: dt.datetime | None = None,
    *,
    replace: bool = False,
) -> Granted:
    """Let ``client`` read the index; ``replace``: with new secrets, scope and epoch when it may already.

    UsageError ``client-invalid-name``, ``peer-known``, ``peer-empty``, ``material-unknown``, ``material-not-indexed``,
    ``region-foreign``. FatalError of :func:`hub.signing.publisher`.
    """
    publisher = signing.publisher()
    if not signing.NAME.fullmatch(client) or len(client) > signing.LONGEST_NAME:
        raise UsageError("client-invalid-name")
    if not materials:
        raise UsageError("peer-empty", peer=client)
    for material in materials:
        _require_indexed(material)
    prefixes = [_within(region, publisher) for region in regions]
    secret, key = client_secrets.made(), secrets.token_bytes(KEY_BYTES)
    granted: dict[str, Any] = {
        "secret_hash": client_secrets.hashed(secret),
        "name": name,
        "materials": list(dict.fromkeys(materials)),
        "regions": list(dict.fromkeys(prefixes)),
        "sealed_key": index_keys.seal(home.current(), key, _about(client)),
        "created_at": dt.datetime.now(dt.UTC),
        "valid_to": valid_to,
    }
    digest = _scope(granted["materials"], granted["regions"], publisher).digest()
    with database.engine().begin() as connection:
        known = connection.execute(sa.select(_table.c.epoch).where(_table.c.client == client).with_for_update()).first()
        if known and not replace:
            raise UsageError("peer-known", peer=client)
        granted["epoch"] = _next_epoch(known.epoch if known else "", digest)
        if known:
            connection.execute(sa.update(_table).where(_table.c.client == client).values(**granted))
        else:
            connection.execute(sa.insert(_table), [{"client": client, **granted}])
    return Granted(client, secret, key, publisher)


def rotate(client: str) -> str:
    """Begin a new epoch, which is returned: the peer reads all anew, and what it kept of the old one means nothing.

    UsageError ``peer-unknown`` or ``peer-ended``.
    """
    with database.engine().begin() as connection:
        peer = _locked(connection, client)
        if not peer.in_force(dt.datetime.now(dt.UTC)):
            raise UsageError("peer-ended", peer=client)
        return _renew(connection, peer, scope(peer, signing.publisher()))


def revoke(client: str) -> None:
    """End an agreement at once; the record of it stays. UsageError ``peer-unknown``."""
    with database.engine().begin() as connection:
        peer = _locked(connection, client)
        now = dt.datetime.now(dt.UTC)
        if peer.in_force(now):
            connection.execute(sa.update(_table).where(_table.c.client == client).values(valid_to=now))


def every() -> list[Peer]:
    """All peers, ended ones too, by name, each with when it last read and how far it came in its epoch: a connection test
    reads the first page again, and takes nothing back."""
    read = schema.index_read
    last = (
        sa.select(sa.func.max(read.c.read_at).label("read_at"), sa.func.max(read.c.up_to).label("position"))
        .where(read.c.peer == _table.c.client, read.c.epoch == _table.c.epoch)
        .lateral()
    )
    chosen = sa.select(*_COLUMNS, last.c.read_at, last.c.position)
    with database.engine().connect() as connection:
        rows = connection.execute(chosen.outerjoin_from(_table, last, sa.true()).order_by(_table.c.client))
        return [_peer(row) for row in rows]


def of(connection: sa.Connection, client: str) -> Peer | None:
    """The agreement with ``client``, in force or not."""
    row = connection.execute(sa.select(*_COLUMNS).where(_table.c.client == client)).first()
    return _peer(row) if row else None


def authenticate(engine: sa.Engine, client: str, secret: str) -> bool:
    """Whether ``secret`` is the peer's. An unknown one takes as long as a wrong secret."""
    with engine.connect() as connection:  # given back before the slow part
        kept = connection.scalar(sa.select(_table.c.secret_hash).where(_table.c.client == client.replace("\0", "")))
    return client_secrets.matches(secret, kept)


def scope(peer: Peer, publisher: Publisher) -> Scope:
    """What is announced to ``peer`` now."""
    return _scope(peer.materials, peer.regions, publisher)


def up_to_date(connection: sa.Connection, peer: Peer, now: Scope) -> Peer:
    """The peer in the epoch of the scope ``now``: a material that may no longer be announced, or a region that changed,
    begins a new one, so that the peer drops what it should no longer have."""
    if peer.epoch.endswith(f"-{now.digest()}"):
        return peer
    locked = _locked(connection, peer.client)
    if locked.epoch.endswith(f"-{now.digest()}"):
        return locked
    return replace(locked, epoch=_renew(connection, locked, now))


def epoch_key(connection: sa.Connection, peer: Peer) -> bytes:
    """The key of the peer's epoch. FatalError ``key-missing`` or ``index-key-unreadable``."""
    sealed = connection.scalar(sa.select(_table.c.sealed_key).where(_table.c.client == peer.client))
    return index_keys.epoch_key(index_keys.unseal(home.current(), sealed or b"", _about(peer.client)), peer.epoch)


def _renew(connection: sa.Connection, peer: Peer, now: Scope) -> str:
    epoch = _next_epoch(peer.epoch, now.digest())
    connection.execute(sa.update(_table).where(_table.c.client == peer.client).values(epoch=epoch))
    return epoch


def _next_epoch(last: str, digest: str) -> str:
    """Later, as text, than ``last``, even when a clock was put back."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    if last:
        now = max(now, dt.datetime.strptime(last.partition("-")[0] + "+0000", EPOCH + "%z") + dt.timedelta(seconds=1))
    return f"{now:{EPOCH}}-{digest}"


def _scope(materials: Sequence[str], regions: Sequence[str], publisher: Publisher) -> Scope:
    own = _prefix(publisher.region)
    within = tuple(region for region in regions or (own,) if region.startswith(own))
    return Scope(tuple(material for material in materials if _indexed(material)), within)


def _indexed(code: str) -> bool:
    return any(known.code == code and known.kind == "certificate" and known.indexed for known in model.all_materials())


def _require_indexed(code: str) -> None:
    known = [material.code for material in model.all_materials() if material.kind == "certificate"]
    if code not in known:
        raise UsageError("material-unknown", material=catalogue.shown(code), known=", ".join(known))
    if not _indexed(code):
        raise UsageError("material-not-indexed", material=code)


def _within(region: str, publisher: Publisher) -> str:
    prefix = _prefix(region)
    if not re.fullmatch(r"[1-9][0-9]([0-9]{2}){0,2}", prefix) or not prefix.startswith(_prefix(publisher.region)):
        raise UsageError("region-foreign", own=publisher.region)
    return prefix


def _prefix(region: str) -> str:
    """What all division codes within ``region`` begin with: 330000 is 33, 330100 is 3301 (GB/T 2260)."""
    return re.sub(r"(00)+$", "", region) if len(region) == 6 else region


def _about(client: str) -> str:
    return f"peer:{client}"


def _locked(connection: sa.Connection, client: str) -> Peer:
    row = connection.execute(sa.select(*_COLUMNS).where(_table.c.client == client).with_for_update()).first()
    if row is None:
        raise UsageError("peer-unknown", peer=catalogue.shown(client))
    return _peer(row)


_COLUMNS = [column for column in _table.c if column.name not in ("secret_hash", "sealed_key")]


def _peer(row: sa.Row) -> Peer:
    values: dict[str, Any] = dict(row._mapping)
    return Peer(**{**values, "materials": tuple(values["materials"]), "regions": tuple(values["regions"])})
