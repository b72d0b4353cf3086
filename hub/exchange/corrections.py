"""Corrections 校核: a hub that finds an error in what another holds files it with the owner, who answers in ten working days.

What is said here counts here at once and is told to the other hub, again where that did not get through. The fix itself comes
back through the feed, as any change does (:mod:`hub.exchange.sightings`).
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from connectors.errors import RetriableError, UsageError, YiciError
from hub import catalogue, clock, database, records, schema_exchange
from hub.agreements import columns
from hub.exchange import agreements, announced, caller, refiling, sealing
from hub.exchange import correction_messages as messages
from hub.exchange.agreements import Agreement
from hub.exchange.caller import PartnerProblem
from hub.exchange.correction_messages import ANSWER, FILE, OUTCOMES, Answered, Filed, Filing, Said
from mappings import model

# Refusals that stay the same however often a filing is repeated.
FINAL = frozenset(
    ("correction-filed", "correction-not-agreed", "correction-record-unknown", "correction-taken", "correction-version-old",
     "field-not-agreed", "material-not-agreed", "mode-not-agreed")
)  # fmt: skip
EPOCH = "reconcile-epoch"  # the owner is in another one than the filing speaks in
OVER = "correction-epoch-over"  # … and nobody can say what it speaks of
AWAY = frozenset({"partner-away", "partner-plain", "partner-resting"})  # whoever is, is so for the rest as well
_table = schema_exchange.correction


@dataclass(frozen=True)
class Correction:
    """One correction as this hub keeps it. ``owner``: whether this hub owns the record. ``told``: whether the other hub took what was said
    here last. ``overdue``: the owner has not answered in time. ``problem``: why it could not be told just now."""

    id: uuid.UUID
    peer: str
    owner: bool
    agreement: str
    material: str
    field: str
    handle: str
    holding: str | None
    filed_at: dt.datetime
    filed_by: str | None
    due_on: dt.date
    state: str
    answered_at: dt.datetime | None
    answered_by: str | None
    seen_at: dt.datetime | None
    told: bool
    overdue: bool
    problem: YiciError | None = None

    def shown(self) -> dict[str, Any]:
        """As one JSON object, without what is sealed."""
        values = {name: value for name, value in vars(self).items() if name != "problem"}
        if self.problem is not None:
            values["problem"] = {"code": self.problem.code, "message": str(self.problem)}
        return values


@dataclass(frozen=True)
class Content:
    """What was said: it may name people."""

    said: Said
    reason: str | None


def file(
    peer: str, handle: str, field: str, said: Said, *, actor: str, agreement: uuid.UUID | None = None
) -> Correction:
    """File an error with ``peer``, which announced the certificate under ``handle``. The same again is filed once.

    UsageError ``correction-record-untold``, ``correction-field``, ``correction-said``, ``correction-open``, ``correction-not-agreed``,
    and of the agreement; FatalError ``calendar-year-missing``; whatever the owner refuses it for. Where the owner is away it
    is kept and told later: ``problem``.
    """
    now = dt.datetime.now(dt.UTC)
    _require_said(said)
    if not re.fullmatch("[0-9a-f]{32}", handle):
        raise UsageError("correction-record-untold", peer=catalogue.shown(peer))
    with database.engine().begin() as connection:
        connection.execute(_ALONE, {"handle": handle})
        told = connection.execute(_TOLD, {"peer": peer, "handle": handle}).first()
        if told is None:
            raise UsageError("correction-record-untold", peer=catalogue.shown(peer))
        _require_field(told.material, field)
        agreed = _agreed(connection, peer, told.material, field, agreement, now)
        known = connection.execute(_OPEN, {"peer": peer, "handle": bytes.fromhex(handle), "field": field}).first()
        if known is None:
            named = records.key(now)
            row = {
                "id": named,
                "peer": peer,
                "owner": False,
                "agreement": agreed.reference,
                "epoch": told.epoch,
                "handle": bytes.fromhex(handle),
                "material": told.material,
                "field": field,
                "version": told.digest,
                "sealed": messages.sealed(named, said),
                "filed_by": actor,
                "filed_at": now,
                "due_on": messages.due(now),
                "state": "filed",
            }
            connection.execute(sa.insert(_table), [row])
        elif messages.opened(known.id, bytes(known.sealed)) == said:
            named = known.id
        else:
            raise UsageError("correction-open", id=known.id)
    return tell(named, forget=known is None)


def answer(named: uuid.UUID, outcome: str, reason: str | None, *, actor: str) -> Correction:
    """Answer a correction that was filed with this hub: ``corrected``, ``confirmed`` (it is right as it is) or ``refused``.

    UsageError ``correction-unknown``, ``correction-not-ours``, ``correction-answered``, ``correction-outcome``, ``correction-reason``.
    """
    if outcome not in OUTCOMES:
        raise UsageError("correction-outcome", known=", ".join(OUTCOMES))
    if outcome != "corrected" and not (reason or "").strip():
        raise UsageError("correction-reason")
    with database.engine().begin() as connection:
        row = _locked(connection, named)
        if not row.owner:
            raise UsageError("correction-not-ours", peer=row.peer)
        if row.state not in ("filed", outcome):
            raise UsageError("correction-answered", state=row.state)
        if row.state == "filed":
            said = (reason or "").strip()[:4000]
            connection.execute(
                sa.update(_table)
                .where(_table.c.id == named)
                .values(
                    state=outcome,
                    sealed_reason=sealing.seal(said.encode(), messages.about(named)) if said else None,
                    answered_by=actor,
                    answered_at=dt.datetime.now(dt.UTC),
                    told_at=None,
                )
            )
    return tell(named)


def tell(named: uuid.UUID, *, forget: bool = False) -> Correction:
    """Tell the other hub what it has not taken yet. ``forget``: a filing that it refuses is not kept.

    Raises what the other hub refuses it for; where it cannot be reached now, that is the ``problem``.
    """
    with database.engine().connect() as connection:
        row = connection.execute(sa.select(_table).where(_table.c.id == named)).first()
    if row is None:
        raise UsageError("correction-unknown")
    problem: YiciError | None = None
    if row.told_at is None:
        try:
            _note(named, _answer_told(row) if row.owner else _filing_told(row, again=not forget))
        except PartnerProblem as refused:
            if forget:
                _forget(named)
            elif row.owner or refused.values["code"] in FINAL:
                _note(named, _refused(row, str(refused.values["reason"])))
            raise
        except UsageError as over:
            if over.code == OVER:
                _note(named, _refused(row, str(over)))
            raise
        except RetriableError as error:
            problem = error
    return _one(named, problem)


def tell_all(peer: str | None = None) -> dict[str, str]:
    """Tell all that was not taken yet, of ``peer`` or of all; what came of each: ``ok`` or a code. Who is away is told no more."""
    query = sa.select(_table.c.id, _table.c.peer).where(_table.c.told_at.is_(None)).order_by(_table.c.id)
    query = query if peer is None else query.where(_table.c.peer == peer)
    with database.engine().connect() as connection:
        waiting = connection.execute(query).all()
    found: dict[str, str] = {}
    away: set[str] = set()
    for named, name in waiting:
        if name in away:
            continue
        try:
            problem = tell(named).problem
            if problem is not None and problem.code in AWAY:
                away.add(name)
            found[str(named)] = problem.code if problem else "ok"
        except YiciError as error:
            found[str(named)] = str(error.values.get("code", error.code))
    return found


def every(*, peer: str | None = None, open_: bool = False, overdue: bool = False) -> list[Correction]:
    """Corrections by due day, the most urgent first."""
    query = sa.select(_table).order_by(_table.c.due_on, _table.c.id)
    query = query if peer is None else query.where(_table.c.peer == peer)
    query = query.where(_table.c.state == "filed") if open_ or overdue else query
    with database.engine().connect() as connection:
        found = [_correction(row) for row in connection.execute(query)]
    return [each for each in found if each.overdue or not overdue]


def show(named: uuid.UUID) -> tuple[Correction, Content]:
    """One correction and what was said. UsageError ``correction-unknown``; FatalError where it cannot be unsealed."""
    with database.engine().connect() as connection:
        row = connection.execute(sa.select(_table).where(_table.c.id == named)).first()
    if row is None:
        raise UsageError("correction-unknown")
    reason = sealing.unseal(bytes(row.sealed_reason), messages.about(named)).decode() if row.sealed_reason else None
    return _correction(row), Content(messages.opened(named, bytes(row.sealed)), reason)


def named(text: str) -> uuid.UUID:
    """The correction whose id begins, or ends, with ``text``. UsageError ``correction-unknown``, ``correction-ambiguous``."""
    wanted = text.strip().lower()
    cast = sa.cast(_table.c.id, sa.Text)
    either = cast.startswith(wanted, autoescape=True) | cast.endswith(wanted, autoescape=True)
    with database.engine().connect() as connection:
        found = list(connection.scalars(sa.select(_table.c.id).where(either).limit(2))) if wanted else []
    if len(found) > 1:
        raise UsageError("correction-ambiguous")
    if not found:
        raise UsageError("correction-unknown")
    return found[0]


def _note(named: uuid.UUID, values: dict[str, Any]) -> None:
    with database.engine().begin() as connection:
        connection.execute(sa.update(_table).where(_table.c.id == named, _table.c.told_at.is_(None)).values(**values))


def _forget(named: uuid.UUID) -> None:
    with database.engine().begin() as connection:
        connection.execute(sa.delete(_table).where(_table.c.id == named, _table.c.told_at.is_(None)))


def _refused(row: sa.Row[Any], reason: str) -> dict[str, Any]:
    """What becomes of what the other hub will never take: it has heard it, a filing is over."""
    now = dt.datetime.now(dt.UTC)
    if row.owner:
        return {"told_at": now}
    sealed = sealing.seal(reason.encode(), messages.about(row.id))
    return {"told_at": now, "state": "refused", "answered_at": now, "sealed_reason": sealed}


def _filing_told(row: sa.Row[Any], *, again: bool) -> dict[str, Any]:
    """What the owner took. ``again``: it may have been filed in an epoch that is over by now, as nobody was there to hear it; then
    it is filed in the words of the one that this hub has read since, or waits until it has read one. UsageError
    ``correction-epoch-over``."""
    try:
        return _filed(row)
    except PartnerProblem as refused:
        if refused.values["code"] != EPOCH or not again:
            raise
        with database.engine().begin() as connection:
            if not refiling.read(connection, row):
                raise
            found = refiling.words(connection, row)
            if found is None:
                raise UsageError("correction-epoch-over") from refused
            words = {"epoch": found.epoch, "handle": bytes.fromhex(found.handle), "version": found.version}
            unheard = _table.c.id == row.id, _table.c.told_at.is_(None)
            connection.execute(sa.update(_table).where(*unheard).values(**words))
            row = connection.execute(sa.select(_table).where(_table.c.id == row.id)).one()
    return _filed(row)


def _filed(row: sa.Row[Any]) -> dict[str, Any]:
    with database.engine().connect() as connection:
        agreed = _agreed(connection, row.peer, row.material, row.field, None, dt.datetime.now(dt.UTC), row.agreement)
    filing = Filing(
        row.id, row.epoch, bytes(row.handle).hex(), row.version, row.material, row.field,
        messages.opened(row.id, bytes(row.sealed)),
    )  # fmt: skip
    reply = caller.ask(row.peer, FILE, msgspec.json.encode(filing), agreement=agreed)
    taken, at = caller.decoded(reply, Filed), reply.envelope.at
    # The owner's day counts where it is no later than the law's.
    return {"told_at": dt.datetime.now(dt.UTC), "due_on": min(taken.due_on, messages.due(at))}


def _answer_told(row: sa.Row[Any]) -> dict[str, Any]:
    reason = sealing.unseal(bytes(row.sealed_reason), messages.about(row.id)).decode() if row.sealed_reason else None
    now = dt.datetime.now(dt.UTC)
    told: dict[str, Any] = {"correction": row.id, "outcome": row.state, "at": row.answered_at, "reason": reason}
    with database.engine().begin() as connection:
        try:
            agreed = agreements.choose(connection, row.peer, mode="index", provider=True, now=now)
            given = announced.given(connection, agreed)
        except UsageError:  # what was agreed has ended, what was filed is answered all the same
            given = None
    if given is not None:
        handle = given.key.of(f"holding:{bytes(row.holding).hex()}").hex()
        told |= {"epoch": given.epoch, "handle": handle, "version": messages.version_of(given, row.version)}
    caller.ask(row.peer, ANSWER, msgspec.json.encode(Answered(**told)))
    return {"told_at": dt.datetime.now(dt.UTC)}


def _agreed(
    connection: sa.Connection,
    peer: str,
    material: str,
    field: str,
    wanted: uuid.UUID | None,
    now: dt.datetime,
    reference: str | None = None,
) -> Agreement:
    """An agreement in force under which this may be filed. UsageError as :func:`hub.exchange.agreements.admit`."""
    refused: UsageError | None = None
    for row in agreements.every(connection, peer):
        if row.provider or row.state not in agreements.LIVE or wanted not in (None, row.id):
            continue
        if reference is not None and reference.partition("/")[0] != str(row.id):
            continue
        try:
            agreements.require_in_force(row, now)
            agreement = agreements.opened(row)
            messages.require_agreed(agreement, material, field)
        except UsageError as error:
            refused = refused or error
            continue
        return agreement
    raise refused or UsageError("agreement-none", peer=peer)


def _require_field(code: str, field: str) -> None:
    material = next((each for each in model.all_materials() if each.code == code), None)
    known = columns(material) if material else ()
    if field not in known:
        raise UsageError("correction-field", material=catalogue.shown(code), known=", ".join(known))


def _require_said(said: Said) -> None:
    """As the owner will check it. UsageError ``correction-said``."""
    try:
        msgspec.json.decode(msgspec.json.encode(said), type=Said)
    except msgspec.ValidationError:
        raise UsageError("correction-said") from None


def _locked(connection: sa.Connection, named: uuid.UUID) -> sa.Row[Any]:
    row = connection.execute(sa.select(_table).where(_table.c.id == named).with_for_update()).first()
    if row is None:
        raise UsageError("correction-unknown")
    return row


def _one(named: uuid.UUID, problem: YiciError | None) -> Correction:
    with database.engine().connect() as connection:
        return _correction(connection.execute(sa.select(_table).where(_table.c.id == named)).one(), problem)


def _correction(row: sa.Row[Any], problem: YiciError | None = None) -> Correction:
    overdue = row.state == "filed" and clock.today(dt.datetime.now(dt.UTC)) > row.due_on
    return Correction(
        row.id, row.peer, row.owner, row.agreement, row.material, row.field, bytes(row.handle).hex(),
        bytes(row.holding).hex() if row.holding else None, row.filed_at, row.filed_by, row.due_on, row.state, row.answered_at,
        row.answered_by, row.seen_at, row.told_at is not None, overdue, problem,
    )  # fmt: skip


_ALONE = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('yici-correction ' || :handle, 0))")
# What the feed told last of a certificate; a version it told nothing of cannot be spoken about.
_TOLD = sa.text("""
SELECT e.material, e.epoch, e.digest FROM index_entry AS e JOIN source AS s ON s.name = e.source
WHERE s.hub = :peer AND e.handle = decode(:handle, 'hex') AND e.recorded_to IS NULL AND e.digest IS NOT NULL
ORDER BY s.last_success_at DESC NULLS LAST LIMIT 1
""")
_OPEN = sa.select(_table).where(
    _table.c.peer == sa.bindparam("peer"),
    _table.c.handle == sa.bindparam("handle"),
    _table.c.field == sa.bindparam("field"),
    _table.c.state == "filed",
    ~_table.c.owner,
)
