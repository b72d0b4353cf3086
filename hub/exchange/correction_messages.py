"""What hubs say to each other about corrections 校核 (docs/protocol/60-corrections.md): bodies, and the receiver's side of each kind.

What is said of a certificate may name its holder, so it is sealed at rest and stands in no record of the ledger.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from connectors.envelope import SKEW, Moment, ordered
from connectors.errors import FatalError, UsageError
from hub import clock, schema_exchange, working_days
from hub.exchange import announced, epochs, record_digests, sealing, sightings
from hub.exchange.agreements import Agreement
from hub.exchange.announced import Given
from hub.exchange.reconciliation_messages import Epoch, Handle, Material, require_epoch
from hub.exchange.service import Answer, Context, Kind

log = logging.getLogger("yici.exchange")

FILE, ANSWER = "correction.file", "correction.answer"
WORKING_DAYS = 10  # Order 809 Art 26
OPEN = 1000  # corrections of one peer that wait for their answers, at most: each has its clock
OUTCOMES = ("corrected", "confirmed", "refused")
TOLD_BY_INDEX = ("status", "valid_from", "valid_to", "region")  # columns that an index tells, whatever else is agreed

Outcome = Literal["corrected", "confirmed", "refused"]
Field = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?\Z", max_length=120)]
Value = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]
_table = schema_exchange.correction


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of a field: what it should be and why; what it was ``found`` to be, and where the ``evidence`` is."""

    expected: Value
    why: Words
    found: Value | None = None
    evidence: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class Filing(msgspec.Struct, frozen=True, omit_defaults=True):
    """``handle`` and ``version``: as the index announced the certificate in ``epoch``."""

    correction: uuid.UUID
    epoch: Epoch
    handle: Handle
    version: Handle
    material: Material
    field: Field
    said: Said


class Filed(msgspec.Struct, frozen=True):
    """That the owner has it. ``due_on``: the day by whose end, in China, it will have answered."""

    correction: uuid.UUID
    due_on: dt.date


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """``at``: when the owner decided. ``epoch``, ``handle``, ``version``: the certificate as it was filed, in the words of the epoch
    that the index is in now, if it is still announced."""

    correction: uuid.UUID
    outcome: Outcome
    at: Moment
    reason: Words | None = None
    epoch: Epoch | None = None
    handle: Handle | None = None
    version: Handle | None = None


def due(filed_at: dt.datetime) -> dt.date:
    """FatalError ``calendar-year-missing``."""
    return working_days.after(clock.today(filed_at), WORKING_DAYS)


def require_agreed(agreement: Agreement, material: str, field: str) -> None:
    """UsageError ``correction-not-agreed``, and those of :meth:`Agreement.covers`."""
    if not agreement.terms.correction:
        raise UsageError("correction-not-agreed")
    agreement.covers(mode="index", materials=[material])
    if field not in TOLD_BY_INDEX:
        agreement.covers(mode=None, materials=[material], fields=[field])


def filed(context: Context) -> Answer:
    """The owner's side: the peer says that something is wrong. The clock begins when it was signed.

    UsageError as :func:`require_agreed` and ``correction-…``; FatalError ``message-body``, ``correction-calendar``.
    """
    told, agreement = context.decoded(Filing), context.agreement
    assert agreement is not None  # the kind needs one
    if not ordered(told.correction):
        raise FatalError("message-body")
    require_agreed(agreement, told.material, told.field)
    known = context.connection.execute(_BY_ID, {"id": told.correction}).first()
    if known is not None:  # in the words of its epoch, whichever it is by now: the reply may have been lost
        return _again(context, told, known)
    given = announced.given(context.connection, agreement)
    require_epoch(told.epoch, given.epoch)
    holding, version = _certificate(context.connection, given, told)
    _require_room(context, told, holding, version)
    at = context.message.envelope.at
    row: dict[str, Any] = {
        "id": told.correction,
        "peer": context.peer.name,
        "owner": True,
        "agreement": agreement.reference,
        "epoch": told.epoch,
        "handle": bytes.fromhex(told.handle),
        "holding": bytes.fromhex(holding),
        "material": told.material,
        "field": told.field,
        "version": version,
        "sealed": sealed(told.correction, told.said),
        "filed_at": at,
        "due_on": _due(at),
        "state": "filed",
        "told_at": context.now,
    }
    context.connection.execute(sa.insert(_table), [row])
    return _taken(told, row["due_on"])


def answered(context: Context) -> Answer:
    """The side that filed it: the owner has decided. It may also after the agreement has ended."""
    told = context.decoded(Answered)
    if not ordered(told.correction) or (told.outcome != "corrected" and not (told.reason or "").strip()):
        raise FatalError("message-body")
    row = context.connection.execute(_BY_ID, {"id": told.correction}).first()
    if row is None or row.owner or row.peer != context.peer.name:
        raise UsageError("correction-unknown")
    # Refused as it was told, and a copy kept back by the network was taken later: the owner has it, and its word counts.
    open_ = row.state == "filed" or not_taken(row)
    if not open_ and row.state != told.outcome:
        raise UsageError("correction-answered", state=row.state)
    if open_:
        bind: dict[str, Any] = {
            "state": told.outcome,
            "sealed_reason": told.reason and sealing.seal(told.reason.encode(), about(row.id)),
            "answered_at": max(row.filed_at - SKEW, min(told.at, context.now + SKEW)),
            "told_at": row.told_at or context.now,
        }
        if told.epoch and told.handle and told.version:
            bind |= {"epoch": told.epoch, "handle": bytes.fromhex(told.handle), "version": told.version}
        context.connection.execute(sa.update(_table).where(_table.c.id == row.id).values(**bind))
        if source := announced.source(context.connection, row.peer):
            sightings.look(context.connection, source)
    return Answer.of({"correction": told.correction}, correction=str(told.correction), outcome=told.outcome)


def not_taken(row: sa.Row[Any]) -> bool:
    """Whether a filing was over in the moment in which it was told: refused for what it says, not answered."""
    return bool(row.state == "refused" and not row.owner and row.told_at == row.answered_at)


def _due(filed_at: dt.datetime) -> dt.date:
    """FatalError ``correction-calendar``: this hub cannot say when it has to have answered."""
    try:
        return due(filed_at)
    except FatalError as error:
        log.error("%s", error)
        raise FatalError("correction-calendar") from None


def sealed(correction: uuid.UUID, said: Said) -> bytes:
    return sealing.seal(msgspec.json.encode(said), about(correction))


def opened(correction: uuid.UUID, sealed: bytes) -> Said:
    """FatalError as :func:`hub.exchange.sealing.unseal`."""
    return msgspec.json.decode(sealing.unseal(sealed, about(correction)), type=Said)


def about(correction: uuid.UUID) -> str:
    """What the words about a correction are bound to."""
    return f"correction {correction}"


def _certificate(connection: sa.Connection, given: Given, told: Filing) -> tuple[str, str]:
    """Key and digest of the holding it is about, in hex. UsageError ``correction-record-unknown`` when nothing is announced
    under the handle, ``correction-version-old`` when it has changed since."""
    found = record_digests.holdings(connection, given, [told.handle]).get(told.handle)
    if found is None or found[1] != told.material:
        raise UsageError("correction-record-unknown")
    digest = connection.scalar(_DIGEST, {"key": found[0]})
    if digest is None or version_of(given, digest.hex) != told.version:
        raise UsageError("correction-version-old")
    return found[0], digest.hex


def _require_room(context: Context, told: Filing, holding: str, version: str) -> None:
    """UsageError ``correction-filed`` when this peer said the same of this field of this version and waits for the answer,
    ``correction-too-many`` when :data:`OPEN` of its corrections do."""
    connection, peer = context.connection, context.peer.name
    connection.execute(_ALONE, {"peer": peer})
    beside = {"peer": peer, "holding": bytes.fromhex(holding), "field": told.field, "version": version}
    for row in connection.execute(_BESIDE, beside):
        if opened(row.id, bytes(row.sealed)) == told.said:
            raise UsageError("correction-filed", id=row.id)
    if (connection.scalar(_WAITING, {"peer": peer}) or 0) >= OPEN:
        raise UsageError("correction-too-many", most=OPEN)


def version_of(given: Given, digest: str) -> str:
    """How the index tells the version ``digest`` (hex) of a holding."""
    return given.key.of(f"version:{digest}").hex()


def _again(context: Context, told: Filing, row: sa.Row[Any]) -> Answer:
    """What was filed before under this id: the same is filed once. Certificate and version are compared in the words of the epoch
    that is told, which need not be the one in which it was filed."""
    same = (row.peer, row.owner, row.material, row.field) == (context.peer.name, True, told.material, told.field)
    if not same or opened(row.id, bytes(row.sealed)) != told.said:
        raise UsageError("correction-taken")
    holding = f"holding:{bytes(row.holding).hex()}"
    for key in epochs.keys(context.connection, context.peer.name, told.epoch):
        if (key.of(holding).hex(), key.of(f"version:{row.version}").hex()) == (told.handle, told.version):
            return _taken(told, row.due_on)
    raise UsageError("correction-taken")


def _taken(told: Filing, due_on: dt.date) -> Answer:
    detail = {"correction": str(told.correction), "material": told.material, "field": told.field, "due_on": str(due_on)}
    return Answer.of(Filed(told.correction, due_on), **detail)


_BY_ID = sa.select(_table).where(_table.c.id == sa.bindparam("id")).with_for_update()
# Of one peer one after the other, so that none that are filed at once pass by each other.
_ALONE = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('yici-correction-of ' || :peer, 0))")
_OPEN = _table.c.owner, _table.c.peer == sa.bindparam("peer"), _table.c.state == "filed"
_BESIDE = sa.select(_table.c.id, _table.c.sealed).where(
    *_OPEN,
    _table.c.holding == sa.bindparam("holding"),
    _table.c.field == sa.bindparam("field"),
    _table.c.version == sa.bindparam("version"),
)
_WAITING = sa.select(sa.func.count()).select_from(_table).where(*_OPEN)
_DIGEST = sa.text("SELECT digest FROM holding WHERE key = decode(:key, 'hex')").columns(digest=sa.Uuid())
KINDS = {
    FILE: Kind(filed, mode="index", once=True),
    ANSWER: Kind(answered, once=True, needs_agreement=False),
}
