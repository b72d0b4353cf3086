"""Kind ``ledger.witness``: a hub asks a peer which of its checkpoints the peer has heard, and so finds out what it cannot see
in its own store: that its chain was written anew and signed again. The question carries no checkpoint itself: what a peer
hears only by being asked is no witness.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import sqlalchemy as sa

from connectors import messages
from connectors.errors import YiciError
from hub import signing
from hub.exchange import checkpoints, keys

if TYPE_CHECKING:
    from hub.exchange.service import Answer, Context

KIND = "ledger.witness"
PAGE = 1000
SECONDS = 30.0  # for each page
EMPTY = "witness-empty"
LOOKED = 1000  # records: of the usual messages every one carries a checkpoint


class Asked(msgspec.Struct, frozen=True):
    """``after``: only checkpoints of later positions."""

    after: int = 0


class Head(msgspec.Struct, frozen=True):
    position: int
    chain: str
    at: str
    signature: str


class Page(msgspec.Struct, frozen=True):
    """Checkpoints of who asked, by rising position. ``more``: whether there are later ones."""

    checkpoints: list[Head]
    more: bool


@dataclass
class Told:
    """What a peer knew of this hub before it was asked: chains by position, of those that are signed by this hub; ``false``: how
    many are not. ``why``: the code of what kept it from being asked, else None. ``empty``: it knew of none although it was
    told of some, as this hub's own records say."""

    peer: str
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    false: int = 0
    why: str | None = None
    sentence: str | None = None
    empty: bool = False

    @property
    def whole(self) -> bool:
        """Whether its word can be relied on: it answered, and knew of all that it could be expected to."""
        return self.why is None and not self.empty

    def message(self) -> str | None:
        """Why it cannot, in a sentence."""
        return messages.text(EMPTY, None, peer=self.peer) if self.empty else self.sentence

    def shown(self) -> dict[str, Any]:
        return {
            "peer": self.peer,
            "asked": self.why is None,
            "checkpoints": len(self.checkpoints),
            "first": min(self.checkpoints, default=None),
            "latest": max(self.checkpoints, default=None),
            "code": EMPTY if self.empty else self.why,
            "message": self.message(),
        }


def handle(context: Context) -> Answer:
    """The checkpoints of who asks that this hub has kept. FatalError ``message-body``."""
    from hub.exchange.service import Answer

    asked = context.decoded(Asked)
    rows = context.connection.execute(_KEPT, {"hub": context.peer.name, "after": asked.after, "page": PAGE + 1}).all()
    told = [checkpoints.of(row).told() for row in rows[:PAGE]]
    body = orjson.dumps({"checkpoints": told, "more": len(rows) > PAGE})
    return Answer(body, detail={"checkpoints": len(told)})


def ask(peer: str, after: int = 0) -> Told:
    """What ``peer`` had heard of this hub's chain after position ``after``; never raises for what a peer does."""
    from hub.exchange import caller

    told, known = Told(peer), keys.own().public()
    more = True
    try:
        while more:
            reply = caller.ask(peer, KIND, {"after": after}, seconds=SECONDS, head=False)
            page = msgspec.json.decode(reply.body, type=Page)
            for one in page.checkpoints:
                found = checkpoints.opened(one.signature, signing.own_name(), known)
                if found is None or one.position != found.position or one.position <= after:
                    told.false += 1
                    continue
                told.checkpoints[found.position] = found.chain
                after = found.position
            more = page.more and bool(page.checkpoints) and not told.false
    except YiciError as error:
        told.why, told.sentence = error.code, error.message()
    except msgspec.MsgspecError:
        told.false += 1
    return told


def told_before(connection: sa.Connection, peer: str) -> bool:
    """Whether ``peer`` was told a checkpoint of this hub, as the latest :data:`LOOKED` records of what went well say."""
    return any(_carries_head(row.said) for row in connection.execute(_SAID, {"peer": peer, "looked": LOOKED}))


def _carries_head(envelope: str) -> bool:
    try:
        part = envelope.split(".")[1]
        return bool(orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("head"))
    except (ValueError, IndexError, AttributeError):
        return False


# Of an exchange that went well this hub's own side: the other has read it.
_SAID = sa.text("""
SELECT CASE direction WHEN 'asked' THEN request ELSE reply END AS said FROM exchange_record
WHERE peer = :peer AND outcome = 'ok' AND direction IN ('asked', 'answered') AND request IS NOT NULL AND reply IS NOT NULL
ORDER BY id DESC LIMIT :looked
""")
_KEPT = sa.text("""
SELECT position, chain, signed_at, signature FROM exchange_checkpoint WHERE hub = :hub AND position > :after
ORDER BY position LIMIT :page
""")
