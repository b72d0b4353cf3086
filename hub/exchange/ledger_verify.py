"""``yici ledger verify``: every record against its place in the chain, every place against the one before, the end against what
was signed and what peers witnessed.

As of one moment, beside traffic; piece by piece, each piece one statement, so that memory does not grow with the ledger.
Between a record's writing and its place in the chain (seconds) only the signatures of its envelopes protect it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hub import database, partitions, signing, state, verify_sql
from hub.exchange import checkpoints, keys, ledger_months, peers, witnesses
from hub.exchange.entries import digest
from hub.exchange.ledger import START
from hub.exchange.witnesses import Told
from hub.verify import SHOWN, Difference, Progress, quiet

PIECE = 200_000  # records or places of one statement
PATIENCE = dt.timedelta(minutes=10)  # in which a record gets its place
LOWEST, HIGHEST = uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)


@dataclass
class Report:
    """``first``, ``last``: positions that were verified; ``records``: how many there are with a place; ``witnesses``: what
    each peer said that was asked."""

    at: dt.datetime
    first: int = 0
    last: int = 0
    records: int = 0
    pending: int = 0
    checkpoints: int = 0
    witnesses: list[Told] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    @property
    def complete(self) -> bool:
        """Whether peers were asked, and each answered and knew what it was told before. Without them nobody can tell that the
        end was cut back to a place where this hub had signed, nor that who has its key signed another chain."""
        return bool(self.witnesses) and all(told.whole for told in self.witnesses)

    @property
    def witnessed(self) -> int | None:
        """The last position that a peer had heard of: what comes after it only this hub vouches for."""
        return max((position for told in self.witnesses for position in told.checkpoints), default=None)

    def shown(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "complete": self.complete,
            "at": self.at.isoformat(),
            "first": self.first,
            "last": self.last,
            "records": self.records,
            "pending": self.pending,
            "checkpoints": self.checkpoints,
            "witnessed": self.witnessed,
            "witnesses": [one.shown() for one in self.witnesses],
            "differences": [one.shown() for one in self.differences],
        }


def verify(
    engine: sa.Engine | None = None, *, ask: Sequence[str] | None = None, progress: Progress = quiet, piece: int = PIECE
) -> Report:
    """Verify the whole ledger. ``ask``: the peers whose word is asked for, all in force by default; one that does not answer
    is said, and is no difference."""
    engine = engine or database.engine()
    told = _asked(engine, ask, progress)  # before the moment that is verified: what they know then stands in it
    with state.snapshot(engine) as connection:
        connection.execute(sa.text("SET LOCAL work_mem = '32MB'"))
        found = _Found(Report(connection.scalar(sa.text("SELECT now()")), witnesses=told))
        start = _start(connection, found)
        _places(connection, found, start, progress, piece)
        _records(connection, found, progress, piece)
        progress("checkpoints", 0, 0)
        _checkpoints(connection, found, start.position)
        _witnessed(connection, found, start.position)
        _waiting(connection, found)
    found.report.differences = found.differences()
    return found.report


@dataclass(frozen=True)
class _Place:
    position: int
    chain: bytes


class _Found:
    """Differences as they are found, a few keys of each kind."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._kinds: dict[str, tuple[int, tuple[str, ...]]] = {}

    def add(self, code: str, *named: str, found: int | None = None) -> None:
        count, known = self._kinds.get(code, (0, ()))
        self._kinds[code] = count + (len(named) if found is None else found), (*known, *named)[:SHOWN]

    def all_of(self, connection: sa.Connection, statement: str, **bind: object) -> bool:
        """Every row of ``statement``, (code, key); whether there was any."""
        rows = connection.execute(sa.text(verify_sql.SAMPLED.format(statement=statement, shown=SHOWN)), bind).all()
        for row in rows:
            self.add(row.code, *row.keys, found=row.found)
        return bool(rows)

    def differences(self) -> list[Difference]:
        return [Difference("ledger", code, count, named) for code, (count, named) in self._kinds.items()]


def _asked(engine: sa.Engine, ask: Sequence[str] | None, progress: Progress) -> list[Told]:
    with engine.connect() as connection:
        first = connection.scalar(sa.text("SELECT min(position) FROM exchange_chain"))
        named = [peer.name for peer in peers.every(connection)] if ask is None else list(ask)
    told = []
    for done, name in enumerate(named):
        progress(f"witness {name}", done, len(named))
        told.append(witnesses.ask(name, (first or 1) - 1))
    return told


def _start(connection: sa.Connection, found: _Found) -> _Place:
    """Where the chain begins: before its first record, or at the checkpoint that retention left there."""
    first = connection.scalar(sa.text("SELECT min(position) FROM exchange_chain"))
    head = connection.execute(_HEAD).first()
    before = (head.position if head else 0) if first is None else first - 1
    if before == 0:
        return _Place(0, START)
    row = connection.execute(_AT, {"hub": signing.own_name(), "position": before}).first()
    signed = row and checkpoints.opened(row.signature, signing.own_name(), keys.own().public())
    if row is None or signed is None or signed != checkpoints.of(row):
        found.add("chain-start-unproved", f"position {before}")
    elif signed.at.date() >= partitions.earlier(found.report.at.date(), ledger_months.SHORTEST):  # nobody drops it yet
        found.add("chain-start-early", f"position {before}")
    return _Place(before, row.chain if row else b"")


def _places(connection: sa.Connection, found: _Found, start: _Place, progress: Progress, piece: int) -> None:
    """Every place links to the one before, none is missing, and the end is where it is said to be."""
    head = connection.execute(_HEAD).first()
    report, last = found.report, start
    report.first = start.position + 1
    while True:
        high = connection.scalar(_PLACE_AHEAD, {"low": last.position, "piece": piece - 1})
        bind = {"low": last.position, "high": high, "before": last.chain}
        counted = connection.execute(_COUNTED, bind).one()
        if not counted.places:
            break
        progress("chain", last.position, head.position if head else 0)
        found.all_of(connection, _LINKS, **bind)
        report.records += counted.places
        end = connection.execute(_END_OF, bind).one()
        last = _Place(end.position, end.chain)
    report.last = last.position
    if head is None:
        found.add("chain-end-removed", f"position {last.position + 1}")
    elif head.position > last.position:
        found.add("chain-end-removed", f"positions {last.position + 1}-{head.position}")
    elif (head.position, head.chain) != (last.position, last.chain):
        found.add("chain-end-altered", f"position {last.position}")


def _records(connection: sa.Connection, found: _Found, progress: Progress, piece: int) -> None:
    """Every record is what its place says, every place has its record, every record a place or a wait for one."""
    done, low = 0, LOWEST
    while low != HIGHEST:
        high = connection.scalar(_RECORD_AHEAD, {"low": low, "piece": piece - 1}) or HIGHEST
        progress("records", done, found.report.records)
        bind = {"low": low, "high": high}
        differs = found.all_of(connection, _PLACED, **bind)
        # Where every record has its place or waits, there are as many places only if each is of one of them.
        count = connection.execute(_COUNTS, bind).one()
        if differs or count.records != count.places + count.waiting:
            found.all_of(connection, _HELD, **bind)
        done, low = done + piece, high


def _checkpoints(connection: sa.Connection, found: _Found, start: int) -> None:
    """What was signed stands in the chain, and is signed by who says it; the end of the chain is signed.

    Places are given and their end is signed in one transaction, so that no moment shows the one without the other.
    """
    own, signed = signing.own_name(), start
    found.all_of(connection, _SIGNED, hub=own, start=start)
    good = {own: keys.own().public()}
    good |= {peer.name: peers.keys_ever(peer) for peer in peers.every(connection, removed=True)}
    for row in _streamed(connection, _EVERY):
        known = good.get(row.hub, ())
        if checkpoints.opened(row.signature, row.hub, known) != checkpoints.of(row):
            code = "chain-checkpoint-signature" if row.hub == own else "chain-witness-altered"
            found.add(code, f"{row.hub}: position {row.position}")
        elif row.hub == own:
            signed = max(signed, row.position)
        found.report.checkpoints += row.hub == own
    last = found.report.last
    if signed < last:
        found.add("chain-end-unsigned", f"positions {signed + 1}-{last}", found=last - signed)


def _witnessed(connection: sa.Connection, found: _Found, start: int) -> None:
    """What peers say that this hub signed stands in the chain; who says nothing was told nothing."""
    for told in found.report.witnesses:
        if told.why is None and not told.checkpoints:
            told.empty = witnesses.told_before(connection, told.peer)
        if told.false:
            found.add("chain-peer-false", told.peer, found=told.false)
        bind = {"positions": list(told.checkpoints), "chains": list(told.checkpoints.values()), "start": start}
        row = connection.execute(_WITNESSED, bind).one()
        if row.differing:
            found.add(
                "chain-witness-differs", f"{told.peer}: positions {row.agreed + 1}-{row.first}", found=row.differing
            )


def _waiting(connection: sa.Connection, found: _Found) -> None:
    found.report.pending = connection.scalar(sa.text("SELECT count(*) FROM exchange_pending")) or 0
    found.all_of(connection, _PENDING, patience=PATIENCE)


def _streamed(connection: sa.Connection, statement: sa.TextClause) -> Iterator[sa.Row[Any]]:
    yield from connection.execution_options(yield_per=1000).execute(statement)


_HEAD = sa.text("SELECT position, chain FROM exchange_head")
_AT = sa.text("""
SELECT position, chain, signed_at, signature FROM exchange_checkpoint WHERE hub = :hub AND position = :position
""")
_EVERY = sa.text("SELECT hub, position, chain, signed_at, signature FROM exchange_checkpoint ORDER BY hub, position")
_PLACE_AHEAD = sa.text("""
SELECT position FROM exchange_chain WHERE position > :low ORDER BY position OFFSET :piece LIMIT 1
""")
_PIECE = "position > :low AND (position <= :high OR CAST(:high AS bigint) IS NULL)"
_COUNTED = sa.text(f"SELECT count(*) AS places FROM exchange_chain WHERE {_PIECE}")
_END_OF = sa.text(f"SELECT position, chain FROM exchange_chain WHERE {_PIECE} ORDER BY position DESC LIMIT 1")
_LINKS = f"""
SELECT CASE WHEN position > before + 1 THEN 'chain-place-missing'
    WHEN position = before OR chain IS DISTINCT FROM sha256(linked || entry) THEN 'chain-link-broken' END AS code,
  CASE WHEN position > before + 1 THEN 'positions ' || before + 1 || '-' || position - 1
    ELSE record || ' at ' || position END AS key
FROM (
  SELECT position, record, entry, chain, lag(position, 1, CAST(:low AS bigint)) OVER places AS before,
    lag(chain, 1, CAST(:before AS bytea)) OVER places AS linked
  FROM exchange_chain WHERE {_PIECE} WINDOW places AS (ORDER BY position)) AS p
"""
_RECORD_AHEAD = sa.text("SELECT id FROM exchange_record WHERE id > :low ORDER BY id OFFSET :piece LIMIT 1").bindparams(
    sa.bindparam("low", type_=sa.Uuid())
)
# What has no place and does not wait for one was put in, or its place was taken away. The digests are nearly all of the
# work: in this form PostgreSQL shares it among its parallel workers.
_PLACED = f"""
SELECT CASE WHEN c.record IS NULL THEN CASE WHEN p.record IS NULL THEN 'chain-record-added' END
    WHEN {digest("r")} <> c.entry THEN 'chain-record-altered'
    WHEN r.recorded_at <> c.recorded_at THEN 'chain-place-altered'
    WHEN p.record IS NOT NULL THEN 'chain-record-twice' END AS code,
  r.id || coalesce(' at ' || c.position, '') AS key
FROM exchange_record AS r
  LEFT JOIN exchange_chain AS c ON c.record = r.id AND c.record > :low AND c.record <= :high
  LEFT JOIN exchange_pending AS p ON p.record = r.id AND p.record > :low AND p.record <= :high
WHERE r.id > :low AND r.id <= :high
"""
_COUNTS = sa.text("""
SELECT (SELECT count(*) FROM exchange_record WHERE id > :low AND id <= :high) AS records,
  (SELECT count(*) FROM exchange_chain WHERE record > :low AND record <= :high) AS places,
  (SELECT count(*) FROM exchange_pending WHERE record > :low AND record <= :high) AS waiting
""")
_HELD = """
SELECT 'chain-record-removed' AS code, c.record || ' at ' || c.position AS key
FROM exchange_chain AS c LEFT JOIN exchange_record AS r ON r.id = c.record AND r.id > :low AND r.id <= :high
WHERE c.record > :low AND c.record <= :high AND r.id IS NULL
UNION ALL
SELECT 'chain-record-twice', record || ' at ' || max(position)
FROM exchange_chain WHERE record > :low AND record <= :high GROUP BY record HAVING count(*) > 1
"""
_SIGNED = """
SELECT CASE WHEN c.chain IS DISTINCT FROM k.chain THEN 'chain-checkpoint-differs' END AS code, 'position ' || k.position AS key
FROM exchange_checkpoint AS k LEFT JOIN exchange_chain AS c ON c.position = k.position
WHERE k.hub = :hub AND k.position > :start
"""
# ``agreed``: the last position at which both say the same, before the first at which they do not.
_WITNESSED = sa.text("""
WITH told AS (
  SELECT w.position, c.chain IS NOT DISTINCT FROM w.chain AS same
  FROM unnest(CAST(:positions AS bigint[]), CAST(:chains AS bytea[])) AS w (position, chain)
    LEFT JOIN exchange_chain AS c ON c.position = w.position
  WHERE w.position > :start
), wrong AS (SELECT count(*) AS differing, min(position) AS first FROM told WHERE NOT same)
SELECT differing, first, (SELECT coalesce(max(position), :start) FROM told WHERE same AND position < first) AS agreed FROM wrong
""")
_PENDING = """
SELECT CASE WHEN NOT EXISTS (SELECT FROM exchange_record AS r WHERE r.id = p.record AND r.recorded_at = p.recorded_at)
    THEN 'chain-pending-lost'
    WHEN p.recorded_at < now() - CAST(:patience AS interval) THEN 'chain-pending-old' END AS code, p.record::text AS key
FROM exchange_pending AS p
"""
