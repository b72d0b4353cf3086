"""What a reconciliation 对账 asks of the peer, and what is believed of its answers (docs/protocol/50-reconciliation.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from connectors.envelope import Message
from connectors.errors import FatalError
from hub import database
from hub.exchange import caller
from hub.exchange.agreements import Agreement
from hub.exchange.descent import Asked, Parts
from hub.exchange.reconciliation_messages import DIGESTS, Digests

if TYPE_CHECKING:
    from hub.exchange.reconciliation import Progress, Result

SECONDS = 110.0  # for one question: within what a hub allows itself for a message


class Asking:
    """The questions of one reconciliation, counted."""

    def __init__(self, agreement: Agreement, result: Result, progress: Progress) -> None:
        self.agreement, self.result, self.progress = agreement, result, progress
        # Up to where the provider said that records had moved, before the feed was read last.
        self._told: int | None = None

    def ask(self, kind: str, body: Mapping[str, Any]) -> Message:
        data = orjson.dumps(body)
        self.progress(self.agreement.reference, self.result.messages)
        reply = caller.ask(self.agreement.peer, kind, data, agreement=self.agreement, seconds=SECONDS)
        self.result.messages += 1
        self.result.sent += len(data) + len(reply.sealed)  # the question's envelope weighs what the reply's does
        self.result.received += len(reply.wire)
        return reply

    def digests(self, asked: Asked, until: int | None, moved: tuple[str, ...] = ()) -> tuple[Digests, Parts]:
        body = {"epoch": self.result.epoch, "until": until, **asked._asdict(), "moved": moved}
        reply = self.ask(DIGESTS, {name: value for name, value in body.items() if value not in ((), None)})
        said = caller.decoded(reply, Digests)
        with caller.judged(reply):
            if not self.agreement.provider:
                assert until is not None  # the receiver knows how far it has read
                said.require_moved(self.result.epoch or "", until, self.agreement.peer)
                self._require_told(said)
            return said, said.answering(asked, self.agreement.peer)

    def _require_told(self, said: Digests) -> None:
        """That the feed, where it was read since, went as far as the provider said when records had moved. FatalError
        ``reconcile-told``: what was left out then as moved was not announced."""
        if self._told is None:
            named = {"agreement": str(self.agreement.id), "epoch": self.result.epoch}
            with database.engine().connect() as connection:
                self._told = connection.scalar(_TOLD, named) or 0
        if said.moved and self._told > self.result.position:
            raise FatalError("reconcile-told", peer=self.agreement.peer, head=self._told, position=self.result.position)


# With a minute between: the two are told by two clocks.
_TOLD = sa.text("""
SELECT max(cast(r.result ->> 'head' AS bigint)) FROM reconciliation AS r
WHERE split_part(r.agreement, '/', 1) = :agreement AND NOT r.provider AND r.epoch = :epoch AND cast(r.result ->> 'moved' AS int) > 0
  AND r.finished_at + interval '1 minute' < (SELECT max(b.started_at) FROM batch AS b JOIN source AS s ON s.name = b.source
    WHERE s.cursor ->> 'agreement' = :agreement AND b.state = 'merged' AND b.cursor ->> 'epoch' = :epoch)
""")
