"""What is old enough to go, and what holds it back: landed bytes, history, feed, answers and the ledger of the exchange by whole
months, old checkpoints.

Nothing goes that something still needs. A landed month goes once a checkpoint that loads into this store was taken after it
and no batch under way in it needs its files: then ``yici rebuild`` can do without. A month of the feed goes once every receiver of an
agreement has taken it in; of what is still held its last entry stays, for a peer that begins anew. History goes by age alone: an
``--as-of`` before what is kept can no longer be answered in full (:func:`hub.partitions.since`). So do answers, with the evidence
that was given under them. The ledger of the exchange is kept for three years at least (Order 809 Art 29); what is left of it
begins at a checkpoint that was signed before (:mod:`hub.exchange.ledger_months`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from connectors import messages
from connectors.errors import FatalError, UsageError
from connectors.landing import Landing
from hub import answer_sources, answer_texts, catalogue, checkpoint, database, partitions
from hub.checkpoint import Checkpoint, Progress, quiet
from hub.exchange import ledger_months

TABLES = {
    "history": partitions.HISTORY, "feed": ("feed",), "answers": ("answer", "evidence"), "exchange": ledger_months.TABLES,
}  # by kind  # fmt: skip
MARGIN = dt.timedelta(days=1)  # between clocks, and for what was under way when a month ended


@dataclass(frozen=True)
class Keep:
    """Months of each kind that are kept beside the current one, and how many checkpoints.

    UsageError ``retention-exchange-short`` when the ledger of the exchange would go sooner than the law lets it.
    """

    landing: int = 36
    history: int = 36
    feed: int = 36
    answers: int = 36
    checkpoints: int = 2
    exchange: int = ledger_months.SHORTEST

    def __post_init__(self) -> None:
        if self.exchange < ledger_months.SHORTEST:
            raise UsageError("retention-exchange-short", given=self.exchange, least=ledger_months.SHORTEST)

    def before(self, kind: str, today: dt.date) -> dt.date:
        """Months that begin before this one are old: all in them is older than is kept."""
        return partitions.earlier(today, getattr(self, kind))


@dataclass(frozen=True)
class Held:
    """Why something that is old stays: a code of ``messages/retention.yml`` and its values."""

    code: str
    values: dict[str, object] = field(default_factory=dict)

    def sentence(self) -> str:
        return messages.text(self.code, None, **self.values)


@dataclass(frozen=True)
class Item:
    """One month of a kind, or one checkpoint. ``size``: bytes; ``count``: landed files, or rows as PostgreSQL estimates
    them. ``held``: why it stays although it is ``old``."""

    kind: str
    name: str
    count: int
    size: int
    old: bool
    held: Held | None = None

    @property
    def due(self) -> bool:
        return self.old and self.held is None

    def shown(self) -> dict[str, Any]:
        return {**asdict(self), "due": self.due, "why": self.held.sentence() if self.held else None}


def months_of(text: str) -> int:
    """``36m`` or ``3y`` as months. UsageError ``retention-period``."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})([my])", text.strip().lower())
    if not found:
        raise UsageError("retention-period", given=catalogue.shown(text))
    return int(found[1]) * (12 if found[2] == "y" else 1)


def plan(connection: sa.Connection, landing: Landing, keep: Keep, today: dt.date | None = None) -> list[Item]:
    """All that is kept by time, oldest first within its kind, and what becomes of it."""
    today = today or _today()
    good, why_not = _newest(connection, landing)
    items = []
    for name in landing.months():
        old = name < f"{keep.before('landing', today):%Y-%m}"
        held = _held_landing(landing, name, good, why_not) if old else None
        items.append(Item("landing", name, *landing.weight(name), old, held))
    for kind, tables in TABLES.items():
        read = _read(connection) if kind == "feed" else []
        for month in sorted({month for table in tables for month in partitions.months(connection, table)}):
            old = month < keep.before(kind, today)
            held = _held_feed(connection, month, read) if old and kind == "feed" else None
            if old and kind == "exchange" and ledger_months.anchor(connection, month, keep.before(kind, today)) is None:
                held = Held("retention-held-unsigned")
            names = [partitions.name_of(table, month) for table in tables]
            weighed = connection.execute(_WEIGHT, {"names": names}).one()
            items.append(Item(kind, f"{month:%Y-%m}", int(weighed.rows), int(weighed.bytes), old, held))
    known = checkpoint.names(landing)
    for place, name in enumerate(known):
        old = place < len(known) - keep.checkpoints
        needed = Held("retention-held-used") if good is not None and name == good.name else None
        count, size = landing.zone.weight(f"{checkpoint.FOLDER}/{name}")
        items.append(Item("checkpoint", name, count, size, old, needed if old else None))
    return items


def apply(landing: Landing, keep: Keep, *, today: dt.date | None = None, progress: Progress = quiet) -> Iterator[Item]:
    """Drop what is due, one month after the other, each whole; yields what was dropped.

    Before anything landed goes, the checkpoint that stands in for it is read to its last byte. Cut off, it is called again.
    FatalError when that checkpoint is damaged; RetriableError ``partitions-busy``.
    """
    engine = database.engine()
    with engine.begin() as connection:
        partitions.settle(connection)
    with engine.connect() as connection:
        due = [item for item in plan(connection, landing, keep, today) if item.due]
        good, _ = _newest(connection, landing)
    if good is not None and any(item.kind == "landing" for item in due):
        checkpoint.verify(landing, good, progress)
    for done, item in enumerate(due):
        progress(f"{item.kind} {item.name}", done, len(due))
        if item.kind == "checkpoint":
            checkpoint.drop(landing, item.name)
        else:
            month = dt.date.fromisoformat(f"{item.name}-01")
            with engine.begin() as connection:
                if item.kind == "exchange":
                    ledger_months.drop(connection, month, keep.before("exchange", today or _today()))
                elif item.kind == "landing":
                    landing.drop(item.name)
                    partitions.note_since(connection, "landing", partitions.following(month))
                else:
                    keeping = _STANDING if item.kind == "feed" else None
                    for table in TABLES[item.kind]:
                        partitions.drop(connection, table, month, keeping)
                    if item.kind == "answers":
                        answer_sources.forget(connection, partitions.following(month))
                        answer_texts.forget(connection, partitions.following(month))
        yield item


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _newest(connection: sa.Connection, landing: Landing) -> tuple[Checkpoint | None, Held]:
    """The newest checkpoint that a rebuild of this store could start from, else why there is none."""
    revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    why = Held("retention-held-uncovered")
    for name in reversed(checkpoint.names(landing)):
        try:
            found = checkpoint.read(landing, name)
        except FatalError:
            continue
        if found.revision != revision:
            why = Held("retention-held-release", {"checkpoint": name})
        elif any(landing.zone.size(part.file.path) != part.file.size for part in found.parts):
            why = Held("retention-held-damaged", {"checkpoint": name})
        else:
            return found, why
    return None, why


def _held_landing(landing: Landing, month: str, good: Checkpoint | None, why_not: Held) -> Held | None:
    if good is None:
        return why_not
    ended = dt.datetime.combine(partitions.following(dt.date.fromisoformat(f"{month}-01")), dt.time(), dt.UTC)
    if good.taken_at < ended + MARGIN:
        return Held("retention-held-earlier", {"checkpoint": good.name})
    for source, batch in good.pending:
        try:
            files = landing.read_manifest(source, batch).files
        except FatalError:  # nothing landed for it
            continue
        if any(file.path.startswith(f"raw/{month}/") for file in files):
            return Held("retention-held-batch", {"batch": batch, "checkpoint": good.name})
    return None


def _read(connection: sa.Connection) -> list[sa.Row[Any]]:
    """How far the receiver of each agreement in force has taken the feed in, in its epoch: its last read began after that.

    One that has not begun is not among them: it begins with what is held.
    """
    return list(connection.execute(_POSITIONS))


def _held_feed(connection: sa.Connection, month: dt.date, read: list[sa.Row[Any]]) -> Held | None:
    if not read:
        return None
    last = connection.scalar(sa.text(f"SELECT max(position) FROM {partitions.name_of('feed', month)}")) or 0
    first = min(read, key=lambda row: row.position)
    if first.position >= last:
        return None
    values = {"peer": first.peer, "agreement": first.agreement, "position": first.position, "last": last}
    return Held("retention-held-peer", values)


# The last word on each certificate that is still held. Whatever follows an entry was changed or withdrawn first.
_STANDING = """EXISTS (SELECT FROM holding AS h WHERE h.key = k.holding) AND k.change <> 'withdrawn'
AND NOT EXISTS (SELECT FROM feed AS l WHERE l.holding = k.holding AND l.position > k.position AND l.change <> 'added')"""
_POSITIONS = sa.text("""
SELECT a.peer, a.id::text AS agreement, p.position FROM index_position AS p
  JOIN (
    SELECT id, min(peer) AS peer, max(epoch COLLATE "C") AS epoch,
      bool_or(state IN ('in_force', 'suspended') AND valid_to > now()) AS live
    FROM exchange_agreement WHERE provider GROUP BY id
  ) AS a ON a.id = p.agreement AND a.epoch = p.epoch
WHERE a.live AND p.position > 0
""")
_WEIGHT = sa.text("""
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint AS rows, coalesce(sum(pg_total_relation_size(c.oid)), 0) AS bytes
FROM unnest(cast(:names AS text[])) AS n (name) JOIN pg_class AS c ON c.oid = to_regclass(n.name)
""")
