"""The ledger of the exchange (docs/protocol/20-ledger.md): what was asked and answered, in one order nobody changes unnoticed.

Records (:mod:`hub.exchange.entries`) get their places in the chain here, a batch of them in one statement; every place links to the
one before, and the end is signed (:mod:`hub.exchange.checkpoints`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

import sqlalchemy as sa

from connectors.errors import FatalError, RetriableError, YiciError
from hub import database, partitions
from hub.exchange import checkpoints
from hub.exchange.checkpoints import head, witness
from hub.exchange.entries import digest, record

__all__ = ["Chainer", "chain", "head", "record", "witness"]

START = bytes(checkpoints.CHAIN_BYTES)  # the chain before the first record
BATCH = 10_000  # records of one transaction
PATIENCE = "10s"  # of who was told to chain, with another who does
SECONDS = 5.0  # between two looks at what waits
KEEPING = 3600.0  # seconds between two times of clearing up
LEAVING = 10.0  # seconds given to the last batch when it is stopped

log = logging.getLogger("yici.ledger")


def chain(engine: sa.Engine | None = None, *, wait: bool = True, batch: int = BATCH) -> int:
    """Give every record that waits its place, and sign the end; returns how many there were.

    A transaction for each ``batch`` of records: cut off anywhere, the next call does the rest. While another process is
    at it, ``wait`` until it is done (RetriableError ``ledger-busy`` after a while), else nothing is done. FatalError
    ``ledger-head-missing`` when somebody took the end of the chain away.
    """
    engine = engine or database.engine()
    done, after = 0, uuid.UUID(int=0)
    while True:
        with engine.begin() as connection:
            end = _locked(connection, wait)
            if end is None:
                return done
            bind = {"after": after, "limit": batch, "position": end.position, "chain": end.chain}
            found = connection.execute(_CHAIN, bind).one()
            if found.position is not None:
                done += found.position - end.position
                checkpoints.sign(connection, found.position, found.chain)
        if found.waiting < batch:
            return done
        after = found.last  # what waits without a record is not looked at again


class Chainer:
    """Chains in the background of a process that serves. Any number of processes may: one at a time does.

    It never stands in the way of who writes records; while the store is away it goes on trying.
    """

    def __init__(self, engine: sa.Engine, seconds: float = SECONDS) -> None:
        self._engine = engine
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="yici-ledger", daemon=True)
        self._kept_at = float("-inf")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends within :data:`LEAVING` seconds; what waits then is chained by the next one."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(LEAVING)

    def _run(self) -> None:
        failed = ""
        while not self._ended.wait(self._seconds):
            try:
                self._once()
                failed = ""
            except (YiciError, sa.exc.SQLAlchemyError) as error:
                what = error.code if isinstance(error, YiciError) else type(error).__name__
                if what != failed:  # said once, not every few seconds
                    log.error("ledger: %s", what)
                failed = str(what)
            except Exception:  # without it nothing would be chained any more, and nobody would know
                log.exception("ledger")

    def _once(self) -> None:
        if time.monotonic() - self._kept_at >= KEEPING:
            with self._engine.begin() as connection:
                partitions.ensure(connection)
            with self._engine.begin() as connection:
                checkpoints.thin(connection)
            self._kept_at = time.monotonic()
        chain(self._engine, wait=False)


def _locked(connection: sa.Connection, wait: bool) -> sa.Row[Any] | None:
    """The end of the chain, the caller's until its transaction ends; None when it is another's."""
    connection.execute(sa.text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": PATIENCE})
    try:
        row = connection.execute(_END if wait else _END_IF_FREE).first()
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        raise RetriableError("ledger-busy") from error
    if row is None and not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM exchange_head)")):
        raise FatalError("ledger-head-missing")
    return row


_END = sa.text("SELECT position, chain FROM exchange_head FOR UPDATE")
_END_IF_FREE = sa.text("SELECT position, chain FROM exchange_head FOR UPDATE SKIP LOCKED")
# Each record is looked up by its key, whatever the planner believes of tables that grow and shrink all day.
_CHAIN = sa.text(f"""
WITH waiting AS MATERIALIZED (
  SELECT record, recorded_at FROM exchange_pending WHERE record > :after ORDER BY record LIMIT :limit
), found AS MATERIALIZED (
  SELECT w.record, w.recorded_at, r.entry, row_number() OVER (ORDER BY w.record) AS place
  FROM waiting AS w CROSS JOIN LATERAL (
    SELECT {digest("r")} AS entry FROM exchange_record AS r WHERE r.id = w.record AND r.recorded_at = w.recorded_at OFFSET 0
  ) AS r
), linked AS (
  INSERT INTO exchange_chain (position, recorded_at, record, entry, chain)
  SELECT :position + place, recorded_at, record, entry, chained(entry, :chain) OVER (ORDER BY place) FROM found
  RETURNING position, record, chain
), placed AS (
  DELETE FROM exchange_pending WHERE record = ANY(ARRAY(SELECT record FROM linked))
), moved AS (
  UPDATE exchange_head SET position = l.position, chain = l.chain
  FROM (SELECT position, chain FROM linked ORDER BY position DESC LIMIT 1) AS l
  RETURNING exchange_head.position, exchange_head.chain
)
SELECT w.waiting, (SELECT record FROM waiting ORDER BY record DESC LIMIT 1) AS last, m.position, m.chain
FROM (SELECT count(*) AS waiting FROM waiting) AS w LEFT JOIN moved AS m ON true
""").bindparams(
    sa.bindparam("after", type_=sa.Uuid()),
    sa.bindparam("position", type_=sa.BigInteger()),
    sa.bindparam("chain", type_=sa.LargeBinary()),
)
