"""Bulk shares over Delta Sharing: who may read what.

One share for each agreement of mode ``share`` in which this hub gives, named by the agreement's id; one schema,
``materials``; one table for each material, with the agreed columns of the exchange model and no others. Who reads shows the
bearer token of the agreement: made here with an end, shown once, kept only as its SHA-256. Whatever is asked, the agreement is
looked at again, so that its end, a suspension or another version counts at once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.exchange import agreements, ledger
from hub.exchange.agreement_terms import Mode, Terms, shareable
from hub.exchange.agreements import LIVE, Agreement
from hub.schema_exchange import exchange_agreement, share_version
from mappings.model import HOLDER_PARTS, Material, ValueType

SCHEMA = "materials"
MODE: Mode = "share"
DAYS = 90  # of a token, by default
LONGEST_DAYS = 366
FORM = 1  # of the files: another one makes every table anew
_table = exchange_agreement


@dataclass(frozen=True)
class Shared:
    """One table. ``columns``: names as in the exchange model, with types, in its order. ``scope``: digest of all that decides
    which rows and columns are in it; versions made under another one are not served."""

    material: Material
    columns: Mapping[str, ValueType]
    regions: tuple[str, ...]
    scope: str

    @property
    def name(self) -> str:
        return self.material.code


@dataclass(frozen=True)
class Share:
    """What ``agreement`` opens now. ``bearer``: SHA-256 of its token, None where there is none."""

    agreement: Agreement
    tables: Mapping[str, Shared]
    bearer: bytes | None

    @property
    def name(self) -> str:
        return str(self.agreement.id)


@dataclass(frozen=True)
class Caller:
    """Whose token came: ``reference`` is the version of the agreement that it stands for now."""

    peer: str
    reference: str
    bearer: bytes
    until: dt.datetime


def identified(connection: sa.Connection, token: str, now: dt.datetime) -> Caller:
    """Whose ``token`` is, whatever it still opens. UsageError ``token-invalid``."""
    digest = hashlib.sha256(token.encode()).digest()
    query = sa.select(_table.c.id, _table.c.peer, _table.c.bearer_until)
    row = connection.execute(query.where(_table.c.bearer_hash == digest, _table.c.provider)).first()
    if row is None or row.bearer_until is None:
        raise UsageError("token-invalid")
    return Caller(row.peer, f"{row.id}/{_version(connection, row.id, now)}", digest, row.bearer_until)


def opened(connection: sa.Connection, caller: Caller, now: dt.datetime) -> Share:
    """What the caller may read now. UsageError ``share-token-expired``, and those of :func:`hub.exchange.agreements.admit`."""
    if now >= caller.until:
        raise UsageError("share-token-expired", at=f"{caller.until.astimezone(dt.UTC):%Y-%m-%dT%H:%MZ}")
    return _share(_admitted(connection, caller.peer, caller.reference, now), caller.bearer)


def parties(connection: sa.Connection, named: uuid.UUID, now: dt.datetime) -> tuple[str, str]:
    """Whom an agreement in which this hub gives is with, and the version of it that counts. UsageError ``agreement-unknown``."""
    version = _version(connection, named, now)
    query = sa.select(_table.c.peer).where(_table.c.id == named, _table.c.version == version, _table.c.provider)
    peer = connection.scalar(query)
    if peer is None:
        raise UsageError("agreement-unknown")
    return peer, f"{named}/{version}"


def of(connection: sa.Connection, named: uuid.UUID, now: dt.datetime) -> Share:
    """The share of an agreement. UsageError as :func:`hub.exchange.agreements.admit`."""
    return _share(_admitted(connection, *parties(connection, named, now), now), bearer(connection, named, now))


def bearer(connection: sa.Connection, named: uuid.UUID, now: dt.datetime) -> bytes | None:
    """SHA-256 of the token of an agreement that is good now."""
    query = sa.select(_table.c.bearer_hash).where(_table.c.id == named, _table.c.provider, _table.c.bearer_until > now)
    found: bytes | None = connection.scalar(query)
    return found


def every(connection: sa.Connection) -> list[uuid.UUID]:
    """Agreements in which this hub gives whole tables, in force or not."""
    rows = connection.execute(
        sa.select(_table.c.id, _table.c.document)
        .where(_table.c.provider, _table.c.state.in_(LIVE))
        .order_by(_table.c.id)
    )
    found = {row.id: None for row in rows if MODE in orjson.loads(bytes(row.document))["modes"]}
    return list(found)


def profile(
    connection: sa.Connection, named: uuid.UUID, endpoint: str, days: int = DAYS, *, now: dt.datetime
) -> dict[str, Any]:
    """A new token, in the profile file of a Delta Sharing client; the one before opens nothing from now on.

    It ends after ``days``, and with the agreement at the latest. UsageError ``share-endpoint-invalid``, ``share-token-days``, and
    those of :func:`of`.
    """
    if not endpoint.startswith(("https://", "http://")) or len(endpoint) > 500:
        raise UsageError("share-endpoint-invalid")
    if not 1 <= days <= LONGEST_DAYS:
        raise UsageError("share-token-days", most=LONGEST_DAYS)
    share = of(connection, named, now)
    agreement = share.agreement
    token = secrets.token_urlsafe(32)
    until = min((now + dt.timedelta(days=days)).replace(microsecond=0), agreement.terms.valid_to)
    _clear(connection, named)
    kept = {"bearer_hash": hashlib.sha256(token.encode()).digest(), "bearer_until": until}
    connection.execute(
        sa.update(_table).where(_table.c.id == named, _table.c.version == agreement.version).values(**kept)
    )
    told = {"until": until, "tables": sorted(share.tables)}
    ledger.record(connection, peer=agreement.peer, direction="noted", kind="share.profile", agreement=agreement.reference,
                  outcome="ok", detail=told)  # fmt: skip
    return {
        "shareCredentialsVersion": 1,
        "endpoint": endpoint.rstrip("/"),
        "bearerToken": token,
        "expirationTime": until.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }


def revoke(connection: sa.Connection, named: uuid.UUID, *, now: dt.datetime) -> None:
    """Take the token of an agreement back, and every file address given out under it. UsageError ``share-none``."""
    peer, reference = parties(connection, named, now)
    if not _clear(connection, named):
        raise UsageError("share-none")
    ledger.record(connection, peer=peer, direction="noted", kind="share.revoke", agreement=reference, outcome="ok")


def _clear(connection: sa.Connection, named: uuid.UUID) -> bool:
    had = sa.update(_table).where(_table.c.id == named, _table.c.provider, _table.c.bearer_hash.is_not(None))
    return bool(connection.execute(had.values(bearer_hash=None, bearer_until=None)).rowcount)


def token_until(connection: sa.Connection, named: uuid.UUID) -> dt.datetime | None:
    """When the token of an agreement ends, None without one."""
    query = sa.select(_table.c.bearer_until).where(_table.c.id == named, _table.c.bearer_hash.is_not(None))
    found: dt.datetime | None = connection.scalar(query)
    return found


def over(connection: sa.Connection, now: dt.datetime) -> list[uuid.UUID]:
    """Agreements of which tables are kept, and which are over for good: what is kept may go."""
    known = sa.select(_table.c.id).where(_table.c.state.in_((*LIVE, "proposed")), _table.c.valid_to > now)
    query = sa.select(share_version.c.agreement).where(share_version.c.agreement.not_in(known)).distinct()
    return list(connection.scalars(query))


def columns(terms: Terms, material: Material) -> dict[str, ValueType]:
    """The columns of a material's table: those agreed, a holder as its scheme, value and name."""
    agreed = set(terms.shows(material))
    wanted = agreed | {f"{name}.{part}" for name in agreed if name.startswith("holder.") for part in HOLDER_PARTS}
    return {name: kind for name, kind in material.columns().items() if name in wanted}


def _share(agreement: Agreement, bearer: bytes | None) -> Share:
    known = {code: material for code in agreement.materials(MODE) if (material := shareable(code))}
    tables = {code: _shared(agreement.terms, material) for code, material in known.items()}
    return Share(agreement, {code: table for code, table in tables.items() if table.columns}, bearer)


def _shared(terms: Terms, material: Material) -> Shared:
    agreed, regions = columns(terms, material), tuple(sorted(terms.regions))
    said = [FORM, material.code, [*agreed.items()], regions]
    return Shared(material, agreed, regions, hashlib.sha256(orjson.dumps(said)).hexdigest())


def _admitted(connection: sa.Connection, peer: str, reference: str, now: dt.datetime) -> Agreement:
    return agreements.admit(connection, peer, reference, mode=MODE, provider=True, now=now)


def _version(connection: sa.Connection, named: uuid.UUID, now: dt.datetime) -> int:
    """The version that counts: the latest that has begun, else the latest that both signed, in force or not any more."""
    found = connection.scalar(_VERSION, {"id": named, "now": now})
    return int(found or 0)


_VERSION = sa.text("""
SELECT version FROM exchange_agreement
WHERE id = :id AND provider AND state NOT IN ('proposed', 'declined')
ORDER BY state IN ('in_force', 'suspended') DESC, valid_from <= :now DESC, version DESC LIMIT 1
""").bindparams(sa.bindparam("id", type_=sa.Uuid()), sa.bindparam("now", type_=sa.DateTime(timezone=True)))
