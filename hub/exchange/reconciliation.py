"""Reconciliation 对账 with a peer: do both hold the same records under an agreement? (docs/protocol/50-reconciliation.md)

Either side may ask. Digests are compared from the whole down to the records that differ, as of the position up to which the
receiver has read; what was announced since is left out on both sides, so being behind is no difference. The receiver also
compares its index entries with what was announced, and may heal.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from connectors.errors import UsageError, YiciError
from hub import database, records, schema_exchange
from hub.exchange import agreements, announced, healing, record_digests
from hub.exchange.agreements import Agreement
from hub.exchange.announced import Received
from hub.exchange.descent import Asked, Found, Parts, descend
from hub.exchange.healing import Healed
from hub.exchange.reconciliation_asking import Asking
from hub.exchange.reconciliation_messages import require_epoch, require_near

SHOWN = 100  # records named in a result, of each kind of difference
KINDS = ("missing_here", "missing_there", "differing")
UNREAD = "announced-unread"


class Progress(Protocol):
    """Told of each question: the agreement, how many messages so far."""

    def __call__(self, agreement: str, messages: int) -> None: ...


def quiet(agreement: str, messages: int) -> None:
    """No progress shown."""


@dataclass
class Result:
    """What came of one agreement. ``position``: up to which the receiver has read, ``head``: what there is. ``moved``: records
    announced since. ``amiss``: other certificates whose index entries here do not follow from what was announced,
    None where this hub gives. ``left``: differences that are still there."""

    id: uuid.UUID
    peer: str
    agreement: str
    provider: bool
    epoch: str | None
    position: int
    started_at: dt.datetime
    head: int = 0
    moved: int = 0
    found: Found = field(default_factory=Found)
    amiss: int | None = None
    named: list[dict[str, Any]] = field(default_factory=list)
    healed: Healed | None = None
    left: int = 0
    messages: int = 0
    sent: int = 0
    received: int = 0
    finished_at: dt.datetime | None = None

    @property
    def unread(self) -> bool:
        """Whether the receiver reads nothing under this agreement: there is nothing to compare."""
        return self.epoch is None

    @property
    def equal(self) -> bool | None:
        """Whether nothing differs now. None where there is nothing to compare."""
        return None if self.unread else self.left == 0 and self.found.whole

    def shown(self) -> dict[str, Any]:
        """As one JSON object."""
        found = self.found
        return {
            "id": str(self.id),
            "peer": self.peer,
            "agreement": self.agreement,
            "role": "provider" if self.provider else "receiver",
            "equal": self.equal,
            "unread": self.unread,
            "epoch": self.epoch,
            "position": self.position,
            "head": self.head,
            "moved": self.moved,
            "records": {"here": found.here, "there": found.there},
            "differences": {kind: len(getattr(found, kind)) for kind in KINDS}
            | {"at_least": found.least, "all_named": found.whole},
            "entries_amiss": self.amiss,
            "named": self.named,
            "healed": vars(self.healed) if self.healed else None,
            "left": self.left,
            "messages": self.messages,
            "bytes": {"sent": self.sent, "received": self.received},
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
        }


def reconcile(
    peer: str, named: uuid.UUID | None = None, *, heal: bool = False, progress: Progress = quiet
) -> list[Result]:
    """Every agreement in force with ``peer`` that announces an index, or the one ``named``. Results are kept, but of those under
    which the receiver has read nothing: what there is to say of them is ``unread``.

    ``heal``: what the peer gives and is not here as it is there is fetched and merged. UsageError ``reconcile-nothing``,
    ``mode-not-agreed``, ``announced-unread`` where nothing is read at all, ``reconcile-…``; errors of
    :func:`hub.exchange.caller.ask` and, healing, of :func:`hub.pipeline.run`.
    """
    results: list[Result] = []
    refused: YiciError | None = None
    for agreement in _agreements(peer, named):
        try:
            result = _provided(agreement, progress) if agreement.provider else _received(agreement, heal, progress)
        except YiciError as error:
            if UNREAD not in (error.code, error.values.get("code")):
                raise
            refused = refused or error
            results.append(_begun(agreement, None, 0))
            continue
        result.finished_at = dt.datetime.now(dt.UTC)
        _keep(result)
        results.append(result)
    if refused is not None and all(result.unread for result in results):
        raise refused
    return results


def last(peer: str) -> list[dict[str, Any]]:
    """What came of the last reconciliation under each agreement with ``peer``, as it was shown."""
    with database.engine().connect() as connection:
        return [dict(shown) for shown in connection.scalars(_LAST, {"peer": peer})]


def _agreements(peer: str, named: uuid.UUID | None) -> list[Agreement]:
    now = dt.datetime.now(dt.UTC)
    with database.engine().connect() as connection:
        found = []
        refused: UsageError | None = None
        for row in agreements.every(connection, peer):
            if row.state not in agreements.LIVE or named not in (None, row.id):
                continue
            try:
                agreements.require_in_force(row, now)
                agreement = agreements.opened(row)
                agreement.covers(mode="index")
            except UsageError as error:
                refused = error
                continue
            found.append(agreement)
    if not found:
        raise refused or UsageError("reconcile-nothing", peer=peer)
    return found


def _received(agreement: Agreement, heal: bool, progress: Progress) -> Result:
    """This hub reads the peer's feed: the peer says what it announces."""
    with _told(agreement) as (connection, received):
        result = _begun(agreement, received.epoch, received.position)
        asking = Asking(agreement, result, progress)

        def compare(asked: Asked) -> tuple[Parts, Parts]:
            said, there = asking.digests(asked, received.position)
            result.head, result.moved = said.head or 0, len(said.moved)
            with connection.begin():
                return record_digests.told(connection, asked, said.moved), there

        result.found = descend(compare)
        with connection.begin():
            known = record_digests.of_handles(connection, result.found.handles)
            result.amiss, amiss = record_digests.amiss(connection, result.found.handles, SHOWN)
    said = {handle: {"material": told.material, "position": told.position} for handle, told in known.items()}
    result.named = _named(result.found, said)
    result.named += [{"difference": "entries_amiss", "handle": handle} for handle in amiss]
    result.left = result.found.least + result.amiss
    if heal and result.left and result.found.whole:
        wanted = {handle: known[handle].material if handle in known else None for handle in result.found.handles}
        result.healed = healing.heal(
            asking.ask, announced.agreed(agreement), received, wanted, entries=result.amiss > 0
        )
        result.left = _left(agreement, asking, result.found)
    return result


def _left(agreement: Agreement, asking: Asking, found: Found) -> int:
    """Differences that healing left, of those that there were."""
    with _told(agreement) as (connection, received):
        still: list[str] = []
        for start in range(0, found.count, record_digests.MOVED):
            asked = Asked((), tuple(sorted(found.handles)[start : start + record_digests.MOVED]))
            said, there = asking.digests(asked, received.position)
            with connection.begin():
                here = record_digests.told(connection, asked, said.moved)
            still += [handle for handle in here.keys() | there.keys() if here.get(handle) != there.get(handle)]
        with connection.begin():
            return len(still) + record_digests.amiss(connection, still)[0]


def _provided(agreement: Agreement, progress: Progress) -> Result:
    """The peer reads this hub's feed: it says what it was told, and how far it has read."""
    engine = database.engine()
    with engine.begin() as connection:
        given = announced.given(connection, agreement)
    result = _begun(agreement, given.epoch, 0)
    asking = Asking(agreement, result, progress)
    greeting, _ = asking.digests(Asked((), ()), None)
    require_epoch(greeting.epoch, given.epoch)
    result.position = greeting.until

    def compare(asked: Asked) -> tuple[Parts, Parts]:
        with engine.begin() as connection:
            here = record_digests.announced(connection, given, asked, result.position)
        require_near(here, result.position)
        result.head, result.moved = here.head, len(here.moved)
        _, there = asking.digests(asked, result.position, here.moved)
        return here.parts, there

    result.found = descend(compare)
    with engine.begin() as connection:
        held = record_digests.holdings(connection, given, _some(result.found))
    said = {handle: {"holding": key, "material": material} for handle, (key, material) in held.items()}
    result.named = _named(result.found, said)
    result.left = result.found.least
    return result


@contextmanager
def _told(agreement: Agreement) -> Iterator[tuple[sa.Connection, Received]]:
    """A connection with the tables ``told`` and ``amiss``, as of one moment; no transaction is open while a peer is asked."""
    with database.engine().connect() as plain:
        connection = plain.execution_options(isolation_level="REPEATABLE READ")
        try:
            with connection.begin():
                received = announced.received(connection, agreement)
                record_digests.take_in(connection, received, on_commit="PRESERVE ROWS")
                record_digests.look_at_entries(connection, received, on_commit="PRESERVE ROWS")
            yield connection, received
        finally:
            with connection.begin():
                connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.told, pg_temp.amiss"))


def _begun(agreement: Agreement, epoch: str | None, position: int) -> Result:
    now = dt.datetime.now(dt.UTC)
    return Result(records.key(now), agreement.peer, agreement.reference, agreement.provider, epoch, position, now)


def _some(found: Found) -> list[str]:
    return [handle for kind in KINDS for handle in getattr(found, kind)[:SHOWN]]


def _named(found: Found, known: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"difference": kind, "handle": handle, **known.get(handle, {})}
        for kind in KINDS
        for handle in getattr(found, kind)[:SHOWN]
    ]


def _keep(result: Result) -> None:
    found = result.found
    row = {
        "id": result.id,
        "peer": result.peer,
        "agreement": result.agreement,
        "provider": result.provider,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "epoch": result.epoch,
        "position": result.position,
        "differing": found.least,
        "amiss": result.amiss or 0,
        "left": result.left,
        "bytes": result.sent + result.received,
        "result": result.shown(),
    }
    with database.engine().begin() as connection:
        connection.execute(sa.insert(schema_exchange.reconciliation), [row])


_LAST = sa.text("""
SELECT DISTINCT ON (split_part(agreement, '/', 1)) result FROM reconciliation WHERE peer = :peer
ORDER BY split_part(agreement, '/', 1), started_at DESC
""")
