"""How an agreement comes to be in force, stops and ends: every step is taken here, whichever side takes it.

proposed → in_force ⇄ suspended → superseded (by a later version) or ended; proposed → declined. The side that proposed decides
when it is in force: when it takes the acceptance. Suspension is of the whole agreement, by one side, at once, and stays when
a new version comes; its end before the term needs both (Order 809 Art 27). Of each hub the last word counts, by its own clock,
so that both sides come to the same whatever order messages take. All functions work in the caller's transaction, on
rows locked by :func:`locked`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import schema_exchange
from hub.exchange import agreement_terms
from hub.exchange.agreement_terms import Terms
from hub.exchange.agreements import LIVE, SELECT

PROPOSE, ACCEPT, DECLINE = "agreement.propose", "agreement.accept", "agreement.decline"
SUSPEND, RESUME, END = "agreement.suspend", "agreement.resume", "agreement.end"
STATEMENTS = (SUSPEND, RESUME, END)
ENDED = "ended"
OPEN = 100  # proposals of one peer that wait, at most
KEPT = 30  # steps of one hub in the history of a version, at most
TICK = dt.timedelta(microseconds=1)

Rows = Sequence[sa.Row[Any]]
_table = schema_exchange.exchange_agreement


@dataclass(frozen=True)
class Step:
    """What ``hub`` decided, and when by its own clock. ``actor``: who, where it was here."""

    kind: str
    hub: str
    at: dt.datetime
    reason: str | None = None
    actor: str | None = None

    def entry(self) -> dict[str, Any]:
        return {**vars(self), "at": self.at.isoformat()}


def locked(connection: sa.Connection, named: uuid.UUID) -> Rows:
    """All versions of an agreement, the latest first; nobody else changes them, or adds one, before the transaction ends."""
    connection.execute(_LOCK, {"id": str(named)})
    return list(connection.execute(_VERSIONS, {"id": named}))


def file(
    connection: sa.Connection,
    rows: Rows,
    terms: Terms,
    document: bytes,
    step: Step,
    *,
    peer: str,
    own_signature: str | None = None,
    peer_signature: str | None = None,
    now: dt.datetime,
) -> None:
    """Keep a proposal of the side whose signature is given; an older one of the same side no longer waits.

    UsageError ``agreement-taken``, ``agreement-swapped``, ``agreement-version-old``, ``agreement-altered``,
    ``agreement-crossed``, ``agreement-accepted``, ``agreement-declined``, ``agreement-over``, ``agreement-too-many``. What
    waits already, word for word, is kept as it is.
    """
    provider = terms.receiver == peer
    ours = own_signature is not None
    if not _new(rows, terms, document, peer, provider, ours):
        return
    if terms.valid_to <= now:
        raise UsageError("agreement-over")
    waiting = sa.select(sa.func.count()).where(
        _table.c.peer == peer, _table.c.state == "proposed", _table.c.own_signature.is_(None)
    )
    if not ours and (connection.scalar(waiting) or 0) >= OPEN:
        raise UsageError("agreement-too-many", most=OPEN)
    older = _table.c.id == terms.id, _table.c.state == "proposed"
    connection.execute(sa.update(_table).where(*older).values(state="superseded", untold=[], changed_at=now))
    row = {
        "id": terms.id,
        "version": terms.version,
        "peer": peer,
        "provider": provider,
        "document": document,
        "own_signature": own_signature,
        "peer_signature": peer_signature,
        "state": "proposed",
        "valid_from": terms.valid_from,
        "valid_to": terms.valid_to,
        "changed_at": now,
        "history": [step.entry()],
        "untold": [_owed(step)] if ours else [],
    }
    connection.execute(sa.insert(_table), [row])


def _new(rows: Rows, terms: Terms, document: bytes, peer: str, provider: bool, ours: bool) -> bool:
    """Whether it is a proposal not yet heard of. Raises as :func:`file`."""
    if any(row.peer != peer for row in rows):
        raise UsageError("agreement-taken")
    if any(row.provider != provider for row in rows):
        raise UsageError("agreement-swapped")
    if not rows:
        return True
    latest = rows[0]
    if terms.version < latest.version:
        raise UsageError("agreement-version-old")
    waits = latest.state == "proposed"
    if waits and (proposed_here(latest) != ours or accepting(rows) is not None):
        raise UsageError("agreement-crossed")
    if terms.version > latest.version:
        return True
    if bytes(latest.document) != document:
        raise UsageError("agreement-altered")
    if not waits:
        raise UsageError(past(latest.state))
    return False


def past(state: str) -> str:
    """Why a version in ``state`` cannot be accepted any more."""
    return {"declined": "agreement-declined", "superseded": "agreement-version-old"}.get(state, "agreement-accepted")


def version(rows: Rows, number: int) -> sa.Row[Any]:
    """UsageError ``agreement-unknown``."""
    for row in rows:
        if row.version == number:
            return row
    raise UsageError("agreement-unknown")


def waiting(rows: Rows, number: int, *, ours: bool, digest: str | None = None) -> sa.Row[Any]:
    """The version that was proposed by this hub (``ours``) or by the peer, and waits.

    UsageError ``agreement-unknown``, ``agreement-own`` when the other side proposed it, ``agreement-altered`` when
    ``digest`` is of other terms, ``agreement-accepted``, ``agreement-declined``, ``agreement-version-old``.
    """
    row = version(rows, number)
    if digest is not None and digest != agreement_terms.digest(bytes(row.document)):
        raise UsageError("agreement-altered")
    if row.state != "proposed":
        raise UsageError(past(row.state))
    if proposed_here(row) != ours:
        raise UsageError("agreement-own")
    return row


def proposed_here(row: sa.Row[Any]) -> bool:
    """Whether this hub made the proposal."""
    return bool(row.history and row.history[0]["hub"] != row.peer)


def accepting(rows: Rows) -> sa.Row[Any] | None:
    """The version that this hub has accepted, while the peer has not confirmed that it heard so."""
    return next((row for row in rows if row.state == "proposed" and row.own_signature and row.peer_signature), None)


def sign(connection: sa.Connection, row: sa.Row[Any], step: Step, own_signature: str, now: dt.datetime) -> None:
    """This hub accepts the peer's proposal: signed, and in force once the peer has heard so."""
    if row.valid_to <= now:
        raise UsageError("agreement-over")
    told = [*row.untold, _owed(step)]
    _set(connection, row, now, own_signature=own_signature, history=_with(row, step), untold=told)


def begin(
    connection: sa.Connection,
    rows: Rows,
    row: sa.Row[Any],
    now: dt.datetime,
    step: Step | None = None,
    *,
    peer_signature: str,
) -> str:
    """Both have signed the version: it is in force, and takes the place of earlier ones as soon as it counts.

    Who suspended the agreement still does; who wanted it to end and signed this version later, no longer. Returns its state.
    """
    if any(each.version > row.version and each.state in LIVE for each in rows):
        raise UsageError("agreement-version-old")
    start = sa.literal(row.valid_from, _table.c.valid_from.type)
    earlier = _table.c.id == row.id, _table.c.version < row.version, _table.c.state.in_(LIVE)
    connection.execute(
        sa.update(_table)
        .where(*earlier)
        .values(
            state=sa.case((start <= sa.func.greatest(_table.c.valid_from, now), "superseded"), else_=_table.c.state),
            replaced_at=sa.func.least(sa.func.coalesce(_table.c.replaced_at, start), start),
            changed_at=now,
        )
    )
    history = _with(row, step)
    signed = _signed(history)
    before = next((each for each in rows if each.state in (*LIVE, ENDED)), None)
    suspended = list(before.suspended_by) if before else []
    ended = [hub for hub in (before.ended_by if before else ()) if _last(rows, hub, (END,)) > signed[hub]]
    became = _standing(suspended, ended)
    told = [owed for owed in row.untold if owed["kind"] in STATEMENTS]
    _set(
        connection, row, now, state=became, suspended_by=suspended, ended_by=ended, untold=told, history=history,
        peer_signature=peer_signature,
    )  # fmt: skip
    return became


def decline(connection: sa.Connection, row: sa.Row[Any], now: dt.datetime, step: Step, *, owed: bool) -> None:
    """The version will not be in force. ``owed``: the peer has to be told."""
    told = [_owed(step)] if owed else []
    _set(connection, row, now, state="declined", history=_with(row, step), untold=told)


def state(connection: sa.Connection, rows: Rows, step: Step, now: dt.datetime, *, ours: bool) -> str:
    """``step.hub`` suspends the agreement, lets it go on, or wants it to end. Returns its state.

    What it decided before its latest word is no longer heeded, nor an end that it wanted before it signed the version that counts. What
    has ended stays so, and the word is kept for a version to come. UsageError ``agreement-not-in-force``: it never was.
    """
    counted = [row for row in rows if row.state in LIVE] or [row for row in rows if row.state == ENDED][:1]
    if not counted:
        raise UsageError("agreement-not-in-force", state=rows[0].state if rows else "unknown")
    latest = counted[0]
    if step.at <= last_word(rows, step.hub) or (step.kind == END and step.at <= _signed(latest.history)[step.hub]):
        return str(latest.state)
    suspended, ended = set(latest.suspended_by), set(latest.ended_by)
    if step.kind == RESUME:
        suspended.discard(step.hub)
        ended.discard(step.hub)
    else:
        (suspended if step.kind == SUSPEND else ended).add(step.hub)
    became = ENDED if latest.state == ENDED else _standing(suspended, ended)
    values = {"state": became, "suspended_by": sorted(suspended), "ended_by": sorted(ended), "changed_at": now}
    versions = [row.version for row in counted]
    connection.execute(
        sa.update(_table).where(_table.c.id == latest.id, _table.c.version.in_(versions)).values(**values)
    )
    told = list(latest.untold)
    if ours:  # told in this order: to go on undoes what was said before
        undone = STATEMENTS if step.kind == RESUME else (step.kind,)
        told = [*(owed for owed in told if owed["kind"] not in undone), _owed(step)]
    _set(connection, latest, now, history=_with(latest, step), untold=told)
    return became


def conclude(connection: sa.Connection, rows: Rows, hub: str, now: dt.datetime) -> None:
    """The peer says that the agreement has ended: it has, where this hub (``hub``) wanted so too, though it took that back
    since: the two met."""
    live = [row for row in rows if row.state in LIVE]
    if not live or _last(rows, hub, (END,)) <= _signed(live[0].history)[hub]:
        return
    both = sorted((hub, live[0].peer))
    change = sa.update(_table).where(_table.c.id == live[0].id, _table.c.state.in_(LIVE))
    connection.execute(change.values(state=ENDED, ended_by=both, changed_at=now))


def last_word(rows: Rows, hub: str) -> dt.datetime:
    """When ``hub`` last suspended, resumed or wanted to end, by its own clock."""
    return _last(rows, hub, STATEMENTS)


def _last(rows: Rows, hub: str, kinds: Sequence[str]) -> dt.datetime:
    said = [
        dt.datetime.fromisoformat(entry["at"])
        for row in rows
        for entry in row.history
        if entry["hub"] == hub and entry["kind"] in kinds
    ]
    return max(said, default=dt.datetime.min.replace(tzinfo=dt.UTC))


def _signed(history: Sequence[Mapping[str, Any]]) -> dict[str, dt.datetime]:
    """When each hub signed the version, by its own clock."""
    return {
        entry["hub"]: dt.datetime.fromisoformat(entry["at"]) for entry in history if entry["kind"] in (PROPOSE, ACCEPT)
    }


def _standing(suspended: Collection[str], ended: Collection[str]) -> str:
    return ENDED if len(ended) == 2 else "suspended" if suspended else "in_force"


def after(rows: Rows, hub: str, now: dt.datetime) -> dt.datetime:
    """A moment for the next word of ``hub``, its signature as well, later than its last one even when a clock was put back."""
    last = _last(rows, hub, (*STATEMENTS, PROPOSE, ACCEPT))
    return now if last < now else last + TICK


def told(connection: sa.Connection, row: sa.Row[Any], owed: dict[str, Any], now: dt.datetime) -> None:
    """The peer has confirmed ``owed``."""
    _set(connection, row, now, untold=[each for each in row.untold if each != owed])


def _owed(step: Step) -> dict[str, str]:
    return {"kind": step.kind, "at": step.at.isoformat()}


def _with(row: sa.Row[Any], step: Step | None) -> list[dict[str, Any]]:
    """The history with ``step``: of each hub the first, the last of each kind, and the latest ones."""
    if step is None:
        return list(row.history)
    history = [*row.history, step.entry()]
    mine = [entry for entry in history if entry["hub"] == step.hub]
    last = {entry["kind"]: entry for entry in mine}
    spare = [entry for entry in mine[1:] if last[entry["kind"]] is not entry]
    gone = spare[: max(0, len(mine) - KEPT)]
    return [entry for entry in history if entry not in gone]


def _set(connection: sa.Connection, row: sa.Row[Any], now: dt.datetime, **values: Any) -> None:
    named = _table.c.id == row.id, _table.c.version == row.version
    connection.execute(sa.update(_table).where(*named).values(changed_at=now, **values))


_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('yici-agreement ' || :id, 0))")
_VERSIONS = SELECT.where(_table.c.id == sa.bindparam("id")).order_by(_table.c.version.desc()).with_for_update(of=_table)
