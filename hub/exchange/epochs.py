"""Epochs of the index under an agreement: the name of one key and one scope, and the key itself for the receiver.

A new one begins every ``epoch_days`` of the terms, when what may be announced changes, and when an operator says so. Then every id is
another one, and the receiver reads anew. Both versions of an agreement that is being replaced are in the same epoch.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import secrets
import uuid
from dataclasses import dataclass

import orjson
import sqlalchemy as sa

from connectors import signature
from connectors.errors import FatalError, UsageError
from hub import database, home, index_keys, schema_exchange
from hub.exchange import agreement_states, agreements
from hub.exchange.agreements import LIVE, Agreement
from hub.home import KEY_BYTES, Home, KeyedHash

KIND = "index.key"
EPOCH = "%Y%m%dT%H%M%SZ"  # sorts as text; the digest of the scope follows
_table = schema_exchange.exchange_agreement


@dataclass(frozen=True)
class Scope:
    """What the index tells: materials, and prefixes of division codes."""

    materials: tuple[str, ...]
    regions: tuple[str, ...]

    def digest(self) -> str:
        return hashlib.sha256(orjson.dumps([self.materials, self.regions])).hexdigest()[:8]


@dataclass(frozen=True)
class Epoch:
    """``name``: sorts as text after all earlier ones. ``key``: 32 bytes, of this epoch alone."""

    name: str
    key: bytes
    scope: Scope

    def told(self) -> bytes:
        """As the receiver is told it."""
        said = {"epoch": self.name, "key": signature.base64url(self.key), **vars(self.scope)}
        return orjson.dumps(said)


def scope(agreement: Agreement) -> Scope:
    """What may be announced under the agreement now, as the model is."""
    return Scope(agreement.materials("index"), agreement.terms.regions)


def current(connection: sa.Connection, agreement: Agreement, now: dt.datetime) -> Epoch:
    """The epoch the provider is in, begun where the last one is over. Within the caller's transaction.

    UsageError ``mode-not-agreed`` when nothing may be announced. FatalError ``key-missing`` or ``index-key-unreadable``.
    """
    if "index" not in agreement.terms.modes:
        raise UsageError("mode-not-agreed", known=", ".join(agreement.terms.modes))
    told = scope(agreement)
    name, sealed = _latest(connection, agreement.id)
    if name is None or sealed is None or _over(name, told, agreement.terms.epoch_days, now):
        agreement_states.locked(connection, agreement.id)
        name, sealed = _latest(connection, agreement.id)
        if name is None or sealed is None or _over(name, told, agreement.terms.epoch_days, now):
            name, sealed = _begin(connection, agreement.id, agreement.version, sealed, told, now)
    agreed = index_keys.unseal(home.current(), sealed, _about(agreement.id))
    return Epoch(name, index_keys.epoch_key(agreed, name), told)


def renew(named: uuid.UUID, now: dt.datetime) -> str:
    """Begin a new epoch: the receiver asked for it, or the feed of this hub went back. Returns its name.

    UsageError ``agreement-unknown``, ``agreement-not-in-force``, ``mode-not-agreed``.
    """
    with database.engine().begin() as connection:
        rows = agreement_states.locked(connection, named)
        if not rows:
            raise UsageError("agreement-unknown")
        live = next((row for row in rows if row.state in LIVE), None)
        if live is None:
            raise UsageError("agreement-not-in-force", state=rows[0].state)
        agreement = agreements.opened(live)
        if not agreement.provider or "index" not in agreement.terms.modes:
            raise UsageError("mode-not-agreed", known=", ".join(agreement.terms.modes))
        _, sealed = _latest(connection, named)
        return _begin(connection, named, live.version, sealed, scope(agreement), now)[0]


def renew_all(now: dt.datetime) -> list[str]:
    """The same for every agreement under which this hub's index was read: its feed begins anew, so positions mean others."""
    read = sa.select(_table.c.id).where(_table.c.provider, _table.c.epoch.is_not(None), _table.c.state.in_(LIVE))
    with database.engine().connect() as connection:
        found = list(connection.scalars(read.distinct().order_by(_table.c.id)))
    begun = []
    for named in found:
        try:
            begun.append(renew(named, now))
        except FatalError as error:  # what is broken admits nothing, and keeps nobody from the others
            if error.code != "agreement-broken":
                raise
    return begun


def keys(connection: sa.Connection, peer: str, name: str) -> list[KeyedHash]:
    """The keys that the epoch ``name`` has, or had, under the agreements in which this hub announces to ``peer``: which of
    them it belongs to, only what was made with it tells."""
    rows = connection.execute(_SEALED, {"peer": peer})
    return [KeyedHash(index_keys.epoch_key(_unsealed(home.current(), row.sealed_key, row.id), name)) for row in rows]


def _latest(connection: sa.Connection, named: uuid.UUID) -> tuple[str | None, bytes | None]:
    row = connection.execute(_LATEST, {"id": named}).first()
    return (row.epoch, bytes(row.sealed_key)) if row else (None, None)


def _over(name: str, told: Scope, days: int, now: dt.datetime) -> bool:
    return not name.endswith(f"-{told.digest()}") or now >= _begun(name) + dt.timedelta(days=days)


def _begun(name: str) -> dt.datetime:
    return dt.datetime.strptime(name.partition("-")[0] + "+0000", EPOCH + "%z")


def _begin(
    connection: sa.Connection,
    named: uuid.UUID,
    version: int,
    sealed: bytes | None,
    told: Scope,
    now: dt.datetime,
) -> tuple[str, bytes]:
    """Later, as text, than all that the peer was told under this and any other agreement, even when a clock was put back: it may
    read the one after the other."""
    start = now.astimezone(dt.UTC).replace(microsecond=0)
    last = connection.scalar(_LAST, {"id": named})
    if last is not None:
        start = max(start, _begun(last) + dt.timedelta(seconds=1))
    sealed = sealed or index_keys.seal(home.current(), secrets.token_bytes(KEY_BYTES), _about(named))
    name = f"{start:{EPOCH}}-{told.digest()}"
    row = _table.c.id == named, _table.c.version == version
    connection.execute(sa.update(_table).where(*row).values(epoch=name, sealed_key=sealed))
    return name, sealed


def _about(named: uuid.UUID) -> str:
    return f"agreement:{named}"


@functools.lru_cache(maxsize=256)
def _unsealed(here: Home, sealed: bytes, named: uuid.UUID) -> bytes:
    return index_keys.unseal(here, sealed, _about(named))


_LATEST = (
    sa.select(_table.c.epoch, _table.c.sealed_key)
    .where(_table.c.id == sa.bindparam("id"), _table.c.epoch.is_not(None))
    .order_by(_table.c.epoch.collate("C").desc())
    .limit(1)
)
_other = _table.alias()
_LAST = sa.select(sa.func.max(_other.c.epoch.collate("C"))).where(
    _other.c.provider,
    _other.c.peer == sa.select(_table.c.peer).where(_table.c.id == sa.bindparam("id")).limit(1).scalar_subquery(),
)
_SEALED = (
    sa.select(_table.c.id, _table.c.sealed_key)
    .distinct()
    .where(_table.c.peer == sa.bindparam("peer"), _table.c.provider, _table.c.sealed_key.is_not(None))
)
