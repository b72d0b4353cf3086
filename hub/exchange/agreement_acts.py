"""What an operator decides about agreements: it counts here at once and is told to the peer, again where that did not get through.

What the peer has not confirmed is kept with the agreement; :func:`tell` repeats it, in order, and takes what comes of it: an
acceptance that the proposer has heard is in force, one that it refuses is not.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors import signature
from connectors.errors import RetriableError, UsageError, YiciError
from hub import database, schema_exchange, signing
from hub.exchange import agreement_states, agreement_terms, agreements, caller, peers
from hub.exchange.agreement_messages import Standing, plain
from hub.exchange.agreement_states import (
    ACCEPT,
    DECLINE,
    END,
    ENDED,
    PROPOSE,
    RESUME,
    STATEMENTS,
    SUSPEND,
    Rows,
    Step,
)  # fmt: skip
from hub.exchange.agreements import LIVE
from hub.exchange.caller import PartnerProblem
from hub.exchange.peers import Peer

# Refusals that stay the same however often it is said again.
FINAL = frozenset(
    f"agreement-{reason}"
    for reason in ("accepted", "altered", "crossed", "declined", "document", "foreign", "not-in-force", "over", "own",
                   "swapped", "taken", "terms", "unknown", "version-old")
)  # fmt: skip
_table = schema_exchange.exchange_agreement
_peer = schema_exchange.exchange_peer


@dataclass(frozen=True)
class Done:
    """How the agreement stands now. ``problem``: why the peer has not confirmed it yet, None when it has."""

    agreement: str
    state: str
    problem: YiciError | None


@dataclass(frozen=True)
class Told:
    """``problem``: why not all could be told. ``refused``: proposals and acceptances that the peer refused for good: version,
    kind, and how it said so."""

    problem: YiciError | None
    refused: list[tuple[int, str, YiciError]]


def propose(name: str, path: Path, actor: str) -> Done:
    """Sign the agreement in a YAML file and propose it to the peer ``name``.

    UsageError ``peer-unknown``, ``agreement-file`` with every reason and its line, ``agreement-unknown`` where it is to be a
    version of one that there is not, those of :func:`hub.exchange.agreement_states.file`; whatever the peer refuses it for.
    """
    now = _now()
    with database.engine().begin() as connection:
        peer = peers.of(connection, name)
        draft, defects = agreement_terms.examine(path, parties(peer))
        if draft is None:
            raise UsageError("agreement-file", count=len(defects), defects="\n".join(map(str, defects)))
        named = draft.id or uuid.uuid4()
        rows = agreement_states.locked(connection, named)
        if draft.id and not rows:
            raise UsageError("agreement-unknown")
        terms = draft.numbered(named, rows[0].version + 1 if rows else 1)
        document, own = agreement_terms.canonical(terms), signing.own_name()
        agreement_states.file(
            connection, rows, terms, document, Step(PROPOSE, own, agreement_states.after(rows, own, now), actor=actor),
            peer=peer.name, own_signature=_signed(document, now), now=now,
        )  # fmt: skip
    return _told(named, terms.version, PROPOSE)


def accept(named: uuid.UUID, actor: str, number: int | None = None) -> Done:
    """Sign what the peer proposed; said again, it is told again.

    UsageError ``agreement-unknown``, ``agreement-own``, ``agreement-accepted``, ``agreement-declined``, ``agreement-version-old``,
    ``agreement-over``, ``agreement-terms`` where it cannot be agreed any more; whatever the proposer refuses it for.
    FatalError ``agreement-broken``.
    """
    now = _now()
    with database.engine().begin() as connection:
        rows = _rows(connection, named)
        row = agreement_states.waiting(rows, number or rows[0].version, ours=False)
        terms = agreements.opened(row).terms
        if row.own_signature is None:
            if reasons := agreement_terms.flaws(terms, parties(peers.of(connection, row.peer))):
                raise UsageError("agreement-terms", reasons="; ".join(reason for _, reason in reasons))
            own = signing.own_name()
            step = Step(ACCEPT, own, agreement_states.after(rows, own, now), actor=actor)
            agreement_states.sign(connection, row, step, _signed(bytes(row.document), now), now)
    return _told(named, row.version, ACCEPT)


def decline(named: uuid.UUID, actor: str, reason: str | None = None, number: int | None = None) -> Done:
    """Decline what the peer proposed, or withdraw what this hub did.

    UsageError ``agreement-unknown``, ``agreement-accepted``, ``agreement-version-old``, ``reason-names-somebody``.
    """
    now = _now()
    with database.engine().begin() as connection:
        rows = _rows(connection, named)
        row = agreement_states.version(rows, number or rows[0].version)
        if row.state == "proposed" and not (row.own_signature and row.peer_signature):
            step = Step(DECLINE, signing.own_name(), now, _plain(reason), actor)
            agreement_states.decline(connection, row, now, step, owed=True)
        elif row.state != "declined":
            raise UsageError(agreement_states.past(row.state))
    return _told(named, row.version, DECLINE)


def suspend(named: uuid.UUID, actor: str, reason: str | None = None) -> Done:
    """Suspend the agreement, on this side at once; said again, it is told again.

    UsageError ``agreement-unknown``, ``agreement-not-in-force``, ``reason-names-somebody``.
    """
    return _say(SUSPEND, named, actor, reason)


def resume(named: uuid.UUID, actor: str, reason: str | None = None) -> Done:
    """Take back this hub's suspension and its wish for an end. UsageError as :func:`suspend`, ``agreement-not-suspended``."""
    return _say(RESUME, named, actor, reason)


def end(named: uuid.UUID, actor: str, reason: str | None = None) -> Done:
    """Want the agreement to end before its term: it does once the peer wants so too. UsageError as :func:`suspend`."""
    return _say(END, named, actor, reason)


def tell(named: uuid.UUID) -> Told:
    """Tell the peer what it has not confirmed, in order. What it refuses for good is settled, and does not keep back the rest."""
    refused: list[tuple[int, str, YiciError]] = []
    while True:
        with database.engine().connect() as connection:
            found = agreements.versions(connection, named)
        waiting = [(owed, row) for row in found for owed in row.untold]
        if not waiting:
            return Told(None, refused)
        owed, row = min(waiting, key=lambda each: str(each[0]["at"]))
        try:
            reply = caller.ask(row.peer, owed["kind"], _body(row, owed), agreement=agreements.opened(row))
            stands = caller.decoded(reply, Standing).state
        except YiciError as error:
            code = str(error.values["code"]) if isinstance(error, PartnerProblem) else None
            if code not in FINAL:
                return Told(error, refused)
            _settle(named, row.version, owed, code)
            if owed["kind"] in (PROPOSE, ACCEPT) and code != "agreement-accepted":
                refused.append((row.version, owed["kind"], error))
        else:
            _settle(named, row.version, owed, None, stands)


def tell_all(peer: str | None = None) -> dict[str, YiciError | None]:
    """:func:`tell` for every agreement with something untold whose peer is not resting: what came of it, by agreement."""
    done: dict[str, YiciError | None] = {}
    away: set[str] = set()
    for named, name in _owing(peer):
        if name in away:
            continue
        told = tell(named)
        done[str(named)] = told.problem or next((error for *_, error in told.refused), None)
        if isinstance(told.problem, RetriableError):
            away.add(name)
    return done


def parties(peer: Peer) -> dict[str, str]:
    """The two hubs and their regions. FatalError of :func:`hub.signing.publisher`."""
    own = signing.publisher()
    return {own.hub: own.region, peer.name: peer.region}


def _say(kind: str, named: uuid.UUID, actor: str, reason: str | None) -> Done:
    now, own = _now(), signing.own_name()
    with database.engine().begin() as connection:
        rows = _rows(connection, named)
        live = next((row for row in rows if row.state in LIVE), None)
        if live is None and (kind != END or all(row.state != ENDED for row in rows)):
            raise UsageError("agreement-not-in-force", state=rows[0].state)
        said = (
            live is None
            or {
                SUSPEND: own in live.suspended_by,
                END: own in live.ended_by,
                RESUME: own not in live.suspended_by and own not in live.ended_by,
            }[kind]
        )
        if live is not None and said and kind == RESUME and not _owes(rows, RESUME):
            raise UsageError("agreement-not-suspended", by=", ".join(live.suspended_by) or "-")
        if not said:
            step = Step(kind, own, agreement_states.after(rows, own, now), _plain(reason), actor)
            agreement_states.state(connection, rows, step, now, ours=True)
    return _told(named, live.version if live else rows[0].version, kind)


def _owes(rows: Rows, kind: str) -> bool:
    return any(owed["kind"] == kind for row in rows for owed in row.untold)


def _told(named: uuid.UUID, number: int, kind: str) -> Done:
    told = tell(named)
    for refused in told.refused:
        if refused[:2] == (number, kind):
            raise refused[2]
    with database.engine().connect() as connection:
        row = agreement_states.version(agreements.versions(connection, named), number)
    return Done(f"{named}/{number}", row.state, told.problem)


def _settle(
    named: uuid.UUID, number: int, owed: dict[str, Any], refused: str | None, stands: str | None = None
) -> None:
    """What comes of ``owed`` now that the peer ``refused`` it for good, or confirmed it and says how the agreement ``stands``."""
    now = _now()
    with database.engine().begin() as connection:
        rows = agreement_states.locked(connection, named)
        row = agreement_states.version(rows, number)
        if owed not in row.untold:  # another process was told so too
            return
        taken = refused in (None, "agreement-accepted")
        if owed["kind"] == ACCEPT and taken:
            agreement_states.begin(connection, rows, row, now, peer_signature=row.peer_signature)
        elif owed["kind"] in (PROPOSE, ACCEPT) and not taken:
            step = Step(DECLINE, row.peer, now, refused)
            agreement_states.decline(connection, row, now, step, owed=False)
        else:
            agreement_states.told(connection, row, owed, now)
        if owed["kind"] in STATEMENTS and stands == ENDED:
            agreement_states.conclude(connection, rows, signing.own_name(), now)


def _body(row: sa.Row[Any], owed: dict[str, Any]) -> dict[str, Any]:
    reference = f"{row.id}/{row.version}"
    document = bytes(row.document)
    said = {"agreement": reference, "digest": agreement_terms.digest(document)}
    if owed["kind"] == PROPOSE:
        return {"document": document.decode(), "signature": row.own_signature, "at": owed["at"]}
    if owed["kind"] == ACCEPT:
        return {**said, "signature": row.own_signature, "at": owed["at"]}
    why = [each["reason"] for each in row.history if (each["kind"], each["at"]) == (owed["kind"], owed["at"])]
    reason = {"reason": why[0]} if any(why) else {}
    if owed["kind"] == DECLINE:
        return {**said, **reason}
    return {"agreement": reference, "at": owed["at"], **reason}


def _owing(peer: str | None) -> list[tuple[uuid.UUID, str]]:
    rested = sa.or_(_peer.c.rests_until.is_(None), _peer.c.rests_until <= sa.func.now())
    query = (
        sa.select(_table.c.id, _table.c.peer)
        .distinct()
        .join(_peer, _peer.c.name == _table.c.peer)
        .where(_table.c.untold != sa.literal([], _table.c.untold.type), _peer.c.removed_at.is_(None), rested)
        .order_by(_table.c.peer, _table.c.id)
    )
    if peer is not None:
        query = query.where(_table.c.peer == peer)
    with database.engine().connect() as connection:
        return [(row.id, row.peer) for row in connection.execute(query)]


def _rows(connection: sa.Connection, named: uuid.UUID) -> Rows:
    rows = agreement_states.locked(connection, named)
    if not rows:
        raise UsageError("agreement-unknown")
    return rows


def _signed(document: bytes, now: dt.datetime) -> str:
    return signature.detached(document, peers.own_key(now), agreement_terms.TYPE)


def _plain(reason: str | None) -> str | None:
    said = plain(reason)
    if reason and said is None:
        raise UsageError("reason-names-somebody")
    return said


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
