"""Agreements with other hubs as they are kept, and what they admit: on both sides, for every call.

What is not written in a document that both sides signed, is in force now and suspended by neither, is not allowed. How one
comes to be in force is in :mod:`hub.exchange.agreement_states`.
"""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from connectors import signature
from connectors.errors import FatalError, UsageError, YiciError
from hub import database, schema_exchange
from hub.agreements import EVERY, columns
from hub.exchange import agreement_terms, keys
from hub.exchange.agreement_terms import READ, Mode, Terms, shareable

LIVE = ("in_force", "suspended")
UPCOMING, EXPIRED = "upcoming", "expired"
_table = schema_exchange.exchange_agreement
_peer = schema_exchange.exchange_peer
_PEER = (
    _peer.c["keys"].label("peer_keys"),
    sa.or_(_peer.c.name.is_(None), _peer.c.removed_at.is_not(None)).label("stranger"),
)
# Also those with hubs that are no peers any more: they are looked at, and admit nothing.
SELECT: sa.Select[Any] = sa.select(_table, *_PEER).outerjoin(_peer, _peer.c.name == _table.c.peer)


@dataclass(frozen=True)
class Agreement:
    """One version. ``provider``: this hub gives and ``peer`` receives. ``epoch``: of its index, as last renewed under this
    version (:mod:`hub.exchange.epochs`)."""

    id: uuid.UUID
    version: int
    peer: str
    provider: bool
    terms: Terms
    state: str
    epoch: str | None = None

    @property
    def reference(self) -> str:
        return f"{self.id}/{self.version}"

    def materials(self, mode: str | None) -> tuple[str, ...]:
        """What may be exchanged in ``mode`` (None: in any) now: what the model no longer shares is left out."""
        if mode == "index":
            return self.terms.indexed()
        return tuple(code for code in self.terms.materials if shareable(code))

    def covers(
        self,
        *,
        mode: str | None,
        purpose: str | None = None,
        materials: Iterable[str] = (),
        fields: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
        region: str | None = None,
    ) -> None:
        """That the terms allow this. ``mode`` None: a call that belongs to no mode; evidence needs a purpose always.

        ``fields``: columns by material, or those of each of ``materials``. ``region``: a division code, or what several
        begin with. UsageError ``mode-not-agreed``, ``purpose-not-agreed``, ``material-not-agreed``, ``field-not-agreed``,
        ``region-not-agreed``.
        """
        terms = self.terms
        if mode is not None and mode not in terms.modes:
            raise UsageError("mode-not-agreed", known=", ".join(terms.modes))
        if purpose not in terms.purposes and (purpose is not None or mode == "evidence"):
            raise UsageError("purpose-not-agreed", known=", ".join(terms.purposes))
        asked = tuple(materials)
        wanted = fields if isinstance(fields, Mapping) else dict.fromkeys(asked, fields or ())
        known = self.materials(mode)
        if any(code not in known for code in (*asked, *wanted)):
            raise UsageError("material-not-agreed", known=", ".join(known))
        for code, named in wanted.items():
            _require_shown(terms, code, named, mode)
        if region is not None and not region.startswith(terms.regions):
            raise UsageError("region-not-agreed", known=", ".join(terms.regions))


def _require_shown(terms: Terms, code: str, named: Sequence[str], mode: str | None) -> None:
    material = shareable(code)
    if material is None or not named:
        return
    shown = terms.shows(material) if set(READ) & ({mode} if mode else set(terms.modes)) else ()
    if not set(columns(material) if EVERY in named else named) <= set(shown):
        raise UsageError("field-not-agreed", material=code, known=", ".join(shown))


def admit(
    connection: sa.Connection,
    peer: str,
    reference: str | None,
    *,
    mode: Mode | None,
    purpose: str | None = None,
    materials: Iterable[str] = (),
    fields: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    region: str | None = None,
    provider: bool,
    now: dt.datetime,
) -> Agreement:
    """The agreement ``reference`` (``<uuid>/<version>``) with ``peer``, where it allows this at ``now``.

    ``provider``: whether this hub is the one that gives. One indexed read; the signatures are verified once a process.
    UsageError ``agreement-unknown``, ``agreement-not-in-force``, ``agreement-suspended``, ``agreement-version-old``, and
    those of :meth:`Agreement.covers`. FatalError ``agreement-broken`` when what is kept is not what the two signed.
    """
    named = parsed(reference)
    row = connection.execute(_ONE, {"id": named[0], "version": named[1], "peer": peer}).first() if named else None
    if row is None or row.provider != provider:
        raise UsageError("agreement-unknown")
    require_in_force(row, now)
    agreement = opened(row)
    agreement.covers(mode=mode, purpose=purpose, materials=materials, fields=fields, region=region)
    return agreement


def choose(
    connection: sa.Connection,
    peer: str,
    *,
    mode: Mode | None,
    purpose: str | None = None,
    materials: Iterable[str] = (),
    fields: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    region: str | None = None,
    provider: bool,
    now: dt.datetime,
) -> Agreement:
    """An agreement with ``peer`` under which this hub may do it now. Errors as :func:`admit`: the reason of the latest one
    that does not allow it, ``agreement-none`` where there is none."""
    refused: UsageError | None = None
    wanted = tuple(materials)
    query = SELECT.where(_table.c.peer == peer, _table.c.provider == provider, _table.c.state.in_(LIVE))
    for row in connection.execute(query.order_by(_table.c.changed_at.desc(), _table.c.version.desc())):
        try:
            require_in_force(row, now)
            agreement = opened(row)
            agreement.covers(mode=mode, purpose=purpose, materials=wanted, fields=fields, region=region)
        except UsageError as error:
            refused = refused or error
            continue
        return agreement
    raise refused or UsageError("agreement-none", peer=peer)


def require_in_force(row: sa.Row[Any], now: dt.datetime) -> None:
    """That the version in ``row`` counts at ``now``, as it is kept here. UsageError as :func:`admit`."""
    if row.stranger:
        raise UsageError("agreement-unknown")
    if row.state == "suspended":
        raise UsageError("agreement-suspended", by=", ".join(row.suspended_by))
    if row.state == "superseded" or (
        row.state == "in_force" and row.replaced_at is not None and row.replaced_at <= now
    ):
        raise UsageError("agreement-version-old")
    if row.state != "in_force" or row.suspended_by or row.own_signature is None or row.peer_signature is None:
        raise UsageError("agreement-not-in-force", state=row.state)
    if not row.valid_from <= now < row.valid_to:
        term = [moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%MZ") for moment in (row.valid_from, row.valid_to)]
        raise UsageError("agreement-not-in-force", state=" – ".join(term))


def effective(row: sa.Row[Any], now: dt.datetime) -> str:
    """How the version in ``row`` stands at ``now``: its state, or what its dates have made of it meanwhile: ``expired``, ``upcoming``,
    ``superseded``."""
    if row.state not in ("proposed", *LIVE):
        return str(row.state)
    if row.state != "proposed" and row.replaced_at is not None and row.replaced_at <= now:
        return "superseded"
    if row.valid_to <= now:
        return EXPIRED
    return UPCOMING if row.state == "in_force" and now < row.valid_from else str(row.state)


def parsed(reference: str | None) -> tuple[uuid.UUID, int] | None:
    """Id and version of ``<uuid>/<version>``, written exactly so."""
    named, _, version = (reference or "").partition("/")
    try:
        found = uuid.UUID(named), int(version)
    except ValueError:
        return None
    return found if f"{found[0]}/{found[1]}" == reference and 0 < found[1] < 2**31 else None


def opened(row: sa.Row[Any]) -> Agreement:
    """The agreement in ``row``, its signatures verified. FatalError ``agreement-broken``."""
    own = tuple(key.public for key in keys.own().keys)
    theirs = tuple(str(key["public_key"]) for key in row.peer_keys or ())
    try:
        terms = _verified(bytes(row.document), row.own_signature, own, row.peer_signature, theirs)
    except YiciError:
        raise FatalError("agreement-broken", agreement=f"{row.id}/{row.version}") from None
    partner = terms.receiver if row.provider else terms.provider
    beside = (terms.id, terms.version, partner, terms.valid_from, terms.valid_to)
    if beside != (row.id, row.version, row.peer, row.valid_from, row.valid_to):
        raise FatalError("agreement-broken", agreement=terms.reference)
    return Agreement(row.id, row.version, row.peer, row.provider, terms, row.state, row.epoch)


@functools.lru_cache(maxsize=256)
def _verified(
    document: bytes, own: str | None, own_keys: tuple[str, ...], theirs: str | None, their_keys: tuple[str, ...]
) -> Terms:
    """The terms of ``document``, once a process: what both signed, or what waits for the one or the other."""
    for beside, known in ((own, own_keys), (theirs, their_keys)):
        if beside is not None:
            verify(document, beside, known)
    return agreement_terms.parse(document)


def verify(document: bytes, beside: str, known: Iterable[str]) -> None:
    """That exactly ``document`` was signed with one of the keys ``known`` (base64url). UsageError ``agreement-signature``."""
    try:
        found = [signature.public_key(key) for key in known]
        signature.verify_detached(document, beside, found, agreement_terms.TYPE, "agreement")
    except (FatalError, ValueError):
        raise UsageError("agreement-signature") from None


def every(connection: sa.Connection, peer: str | None = None) -> list[sa.Row[Any]]:
    """All versions of all agreements, of ``peer`` alone where it is named; the latest version of each first."""
    query = SELECT if peer is None else SELECT.where(_table.c.peer == peer)
    return list(connection.execute(query.order_by(_table.c.peer, _table.c.id, _table.c.version.desc())))


def versions(connection: sa.Connection, named: uuid.UUID) -> list[sa.Row[Any]]:
    """All versions of one agreement, the latest first."""
    return list(connection.execute(SELECT.where(_table.c.id == named).order_by(_table.c.version.desc())))


def named(text: str) -> uuid.UUID:
    """The agreement whose id begins with ``text``. UsageError ``agreement-unknown``, or ``agreement-ambiguous``."""
    wanted = text.partition("/")[0].lower()
    with database.engine().connect() as connection:
        cast = sa.cast(_table.c.id, sa.Text)
        query = sa.select(_table.c.id).where(cast.startswith(wanted, autoescape=True)).distinct().limit(2)
        found = list(connection.scalars(query)) if wanted else []
    if len(found) > 1:
        raise UsageError("agreement-ambiguous")
    if not found:
        raise UsageError("agreement-unknown")
    return found[0]


_UNREAD = ("history", "untold", "changed_at", "ended_by", "sealed_key", "bearer_hash", "bearer_until")
_ONE: sa.Select[Any] = SELECT.with_only_columns(
    *(column for column in _table.c if column.name not in _UNREAD), *_PEER, maintain_column_froms=True
).where(
    _table.c.id == sa.bindparam("id"),
    _table.c.version == sa.bindparam("version"),
    _table.c.peer == sa.bindparam("peer"),
)
