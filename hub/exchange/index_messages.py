"""What is asked of an index (docs/protocol/25-index.md): kind ``index.page``, the feed of this hub for the receiver of an agreement.

How far each receiver has come is kept: a month of the feed goes once all have taken it in (hub/retention.py).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from connectors.errors import UsageError
from connectors.indexframe import KIND, Epoch, Position
from hub import index_feed
from hub.exchange import announced
from hub.exchange.agreements import Agreement
from hub.exchange.service import Answer, Context, Kind
from hub.schema_exchange import index_position


class Question(msgspec.Struct, frozen=True):
    """``epoch``: in which ``after`` was told; none: whichever it is. ``to``: where the page ends at the latest, ``until``: where
    the whole read does."""

    after: Position
    limit: Annotated[int, msgspec.Meta(ge=1, le=index_feed.LARGEST)] = index_feed.LIMIT
    to: Position | None = None
    until: Position | None = None
    epoch: Epoch | None = None


def page(context: Context) -> Answer:
    """One page. UsageError ``index-epoch-over`` where the position is of another epoch."""
    asked, agreement = context.decoded(Question), context.agreement
    assert agreement is not None  # the kind needs one
    given = announced.given(context.connection, agreement)
    if asked.epoch is not None and asked.epoch != given.epoch:
        raise UsageError("index-epoch-over", epoch=given.epoch)
    served = index_feed.page(context.connection, given, asked.after, asked.limit, to=asked.to, until=asked.until)
    if asked.until is None:  # the first question of a read
        _begun(context.connection, agreement, given.epoch, asked.after)
    detail = {"epoch": given.epoch, "after": asked.after, "to": served.to, "entries": served.entries}
    return Answer(served.body, served.type, detail)


def _begun(connection: sa.Connection, agreement: Agreement, epoch: str, position: int) -> None:
    """Whoever begins to read after a position has taken in all before it."""
    bind = {"agreement": agreement.id, "epoch": epoch, "position": position}
    connection.execute(_BEGUN, bind)


_new = insert(index_position)
_BEGUN = _new.on_conflict_do_update(
    index_elements=["agreement"],
    set_={"epoch": _new.excluded.epoch, "position": _new.excluded.position, "begun_at": sa.func.now()},
)
KINDS = {KIND: Kind(page, mode="index")}
