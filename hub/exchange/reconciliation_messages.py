"""What hubs say to each other in a reconciliation 对账 (docs/protocol/50-reconciliation.md): bodies, and either side's answer.

``reconcile.digests`` may be asked by either side of an agreement, ``reconcile.records`` by the one that receives.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import sqlalchemy as sa

from connectors.errors import FatalError, UsageError
from connectors.indexframe import RESTATED
from hub import index_feed
from hub.exchange import announced, record_digests
from hub.exchange.agreements import Agreement
from hub.exchange.descent import HANDLE, RECORDS, WITHIN, Asked, Part, Parts
from hub.exchange.record_digests import MOVED
from hub.exchange.service import Answer, Context, Kind

DIGESTS = "reconcile.digests"
RESTATE = 1000  # records restated by one message

Epoch = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.:_+-]{0,79}\Z")]
Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Prefix = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2}){0,16}\Z")]
Handle = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Material = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z", max_length=80)]


class Question(msgspec.Struct, frozen=True):
    """``until``: the position up to which the receiver has read; None: it is asked how far. ``moved``: from the provider,
    handles of what was announced since, which neither side counts."""

    epoch: Epoch
    until: Position | None = None
    within: Annotated[tuple[Prefix, ...], msgspec.Meta(max_length=WITHIN)] = ()
    listed: Annotated[tuple[Prefix, ...], msgspec.Meta(max_length=RECORDS)] = ()
    moved: Annotated[tuple[Handle, ...], msgspec.Meta(max_length=MOVED)] = ()


class Digests(msgspec.Struct, frozen=True):
    """``parts``: leading hex digits of the handles, how many records, their digest; none that is empty. ``head`` and
    ``moved``: of the provider."""

    epoch: Epoch
    until: Position
    parts: tuple[tuple[Prefix, Annotated[int, msgspec.Meta(ge=1)], Handle], ...]
    head: Position | None = None
    moved: Annotated[tuple[Handle, ...], msgspec.Meta(max_length=MOVED)] = ()

    def answering(self, asked: Asked, peer: str) -> Parts:
        """The parts, each of those asked about. FatalError ``reconcile-answer`` when one is not."""
        known = set(asked.within), set(asked.listed)
        depth = len((*asked.within, *asked.listed, "")[0])
        found = {prefix: Part(count, digest) for prefix, count, digest in self.parts}
        fitting = (
            (len(prefix) == depth + 2 and prefix[:depth] in known[0])
            or (len(prefix) == HANDLE and prefix[:depth] in known[1] and part.records == 1)
            for prefix, part in found.items()
        )
        if len(found) != len(self.parts) or not all(fitting):
            raise FatalError("reconcile-answer", peer=peer)
        return found

    def require_moved(self, epoch: str, until: int, peer: str) -> None:
        """That a provider says of the position asked about no more than can be: each record that moved has a position of its own
        behind it. What has moved is counted by neither side, so whoever may say so of any record hides every difference.

        FatalError ``reconcile-answer``, ``reconcile-moved``.
        """
        if (self.epoch, self.until) != (epoch, until) or self.head is None or self.head < until:
            raise FatalError("reconcile-answer", peer=peer)
        if len(set(self.moved)) != len(self.moved) or len(self.moved) > self.head - until:
            raise FatalError("reconcile-moved", peer=peer, found=len(self.moved), until=until, head=self.head)


class Restate(msgspec.Struct, frozen=True):
    """``records``: handles, each with what the receiver takes for its material."""

    epoch: Epoch
    records: Annotated[tuple[tuple[Handle, Material | None], ...], msgspec.Meta(min_length=1, max_length=RESTATE)]


def digests(context: Context) -> Answer:
    """The digests of this hub's side."""
    asked, agreement = context.decoded(Question), _agreement(context)
    if len({len(prefix) for prefix in (*asked.within, *asked.listed)}) > 1:
        raise FatalError("message-body")
    one_at_a_time(context.connection, context.peer.name)
    made = (
        _given(context.connection, agreement, asked)
        if agreement.provider
        else _taken(context.connection, agreement, asked)
    )
    counts = {"parts": len(made.parts), "within": len(asked.within), "listed": len(asked.listed), "until": made.until}
    return Answer.of(made, **counts)


def restated(context: Context) -> Answer:
    """What this hub announces now under the handles named, as a page of its feed."""
    asked, agreement = context.decoded(Restate), _agreement(context)
    if len({handle for handle, _ in asked.records}) < len(asked.records):
        raise FatalError("message-body")
    one_at_a_time(context.connection, context.peer.name)
    given = announced.given(context.connection, agreement)
    require_epoch(asked.epoch, given.epoch)
    page = index_feed.restated(context.connection, given, asked.records)
    return Answer(page.body, page.type, {"records": page.entries})


def require_epoch(found: str, known: str) -> None:
    """UsageError ``reconcile-epoch`` when the other side is in another epoch."""
    if found != known:
        raise UsageError("reconcile-epoch", epoch=known)


def one_at_a_time(connection: sa.Connection, peer: str) -> None:
    """Digests of all records cost seconds: one question of a peer at once. FatalError ``reconcile-busy``."""
    if not connection.scalar(_ALONE, {"peer": peer}):
        raise FatalError("reconcile-busy")


def listed(parts: Parts) -> tuple[tuple[str, int, str], ...]:
    return tuple((prefix, *part) for prefix, part in sorted(parts.items()))


def _given(connection: sa.Connection, agreement: Agreement, asked: Question) -> Digests:
    given = announced.given(connection, agreement)
    require_epoch(asked.epoch, given.epoch)
    if asked.until is None:
        raise FatalError("message-body")
    found = record_digests.announced(connection, given, Asked(asked.within, asked.listed), asked.until)
    require_near(found, asked.until)
    return Digests(given.epoch, asked.until, listed(found.parts), found.head, found.moved)


def require_near(found: record_digests.Announced, until: int) -> None:
    """UsageError ``reconcile-ahead`` when the receiver has read more than there is, ``reconcile-behind`` when much was
    announced since."""
    if until > found.head:
        raise UsageError("reconcile-ahead", head=found.head, until=until)
    if len(found.moved) > MOVED:
        raise UsageError("reconcile-behind", head=found.head, until=until, most=MOVED)


def _taken(connection: sa.Connection, agreement: Agreement, asked: Question) -> Digests:
    received = announced.received(connection, agreement)
    require_epoch(asked.epoch, received.epoch)
    if asked.until is None:
        return Digests(received.epoch, received.position, ())
    if asked.until != received.position:
        raise UsageError("reconcile-read-on", until=received.position)
    record_digests.take_in(connection, received)
    found = record_digests.told(connection, Asked(asked.within, asked.listed), asked.moved)
    return Digests(received.epoch, received.position, listed(found))


def _agreement(context: Context) -> Agreement:
    assert context.agreement is not None  # both kinds need one
    return context.agreement


_ALONE = sa.text("SELECT pg_try_advisory_xact_lock(hashtextextended('yici-reconcile ' || :peer, 0))")
KINDS = {
    DIGESTS: Kind(digests, mode="index", provider=None),
    RESTATED: Kind(restated, mode="index"),
}
