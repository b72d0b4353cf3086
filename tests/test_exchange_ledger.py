"""hub/exchange/ledger.py: places are given in the background, and nobody who writes a record ever waits."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, RetriableError
from hub import partitions
from hub.exchange import checkpoints, entries, ledger, ledger_verify
from tests import ledgers
from tests.conftest import ROOT


@pytest.fixture
def hub(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    monkeypatch.setenv("YICI_HUB", "sh")
    monkeypatch.setenv("YICI_REGION", "310000")
    yield store


def rows(engine: sa.Engine, query: str, **bind: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(query), bind))


def chained(engine: sa.Engine) -> list[uuid.UUID]:
    return [row.record for row in rows(engine, "SELECT record FROM exchange_chain ORDER BY position")]


def sound(engine: sa.Engine) -> ledger_verify.Report:
    report = ledger_verify.verify(engine, ask=())
    assert report.ok, report.shown()
    return report


def test_places_link_to_the_one_before_and_the_end_is_signed(hub: sa.Engine) -> None:
    ledgers.plain(hub, 25)
    assert ledger.chain(hub, batch=7) == 25
    chain, found = bytes(32), rows(hub, "SELECT * FROM exchange_chain ORDER BY position")
    assert [row.position for row in found] == list(range(1, 26))
    shown = {row.id: row for row in rows(hub, f"SELECT {entries.columns('r')} FROM exchange_record AS r")}
    for row in found:
        entry = entries.digest_of(shown[str(row.record)]._mapping)
        chain = sha256(chain + entry).digest()
        assert (row.entry, row.chain) == (entry, chain)
    assert [row.record for row in found] == sorted(row.record for row in found)
    assert rows(hub, "SELECT position, chain FROM exchange_head") == [(25, chain)]
    signed = rows(hub, "SELECT position FROM exchange_checkpoint WHERE hub = 'sh' ORDER BY 1")
    assert [row.position for row in signed] == [7, 14, 21, 25], "each batch is signed in its own transaction"
    head = checkpoints.head()
    assert head is not None and (head["position"], head["chain"]) == (25, chain.hex())
    assert ledger.chain(hub) == 0
    assert len(rows(hub, "SELECT FROM exchange_checkpoint")) == 4, "what is signed is not signed again"
    assert (sound(hub).records, sound(hub).checkpoints) == (25, 4)


def test_many_writers_wait_for_nobody_while_the_chain_is_held(hub: sa.Engine) -> None:
    """A chainer in the middle of its work, its transaction open, and writers of whom none may wait for a lock."""
    ledgers.plain(hub, 20)
    engine = sa.create_engine(hub.url, pool_size=16)

    def write(number: int) -> float:
        begun = time.monotonic()
        for place in range(10):
            with engine.begin() as connection:
                connection.execute(sa.text("SET LOCAL lock_timeout = '2s'"))  # the chain is held for longer
                detail = {"n": number * 100 + place}
                entries.record(connection, peer="zj", direction="asked", kind="index.page", outcome="ok", detail=detail)
        return time.monotonic() - begun

    with hub.connect() as holding:
        end = ledger._locked(holding, True)
        assert end is not None
        bind = {"after": uuid.UUID(int=0), "limit": 100, "position": end.position, "chain": end.chain}
        assert holding.execute(ledger._CHAIN, bind).one().position == 20
        with ThreadPoolExecutor(16) as pool:
            assert len(list(pool.map(write, range(16)))) == 16
        assert ledger.chain(hub, wait=False) == 0, "another one is at it"
        holding.rollback()
    engine.dispose()
    assert rows(hub, "SELECT count(*) FROM exchange_pending") == [(180,)]
    assert ledger.chain(hub) == 180
    sound(hub)


def test_what_commits_late_is_chained_later(hub: sa.Engine) -> None:
    with hub.connect() as late:
        early = entries.record(late, peer="zj", direction="answered", kind="index.page", outcome="ok")
        time.sleep(0.002)  # ids of one millisecond sort as they like
        ledgers.plain(hub, 2)
        assert ledger.chain(hub) == 2
        ledgers.plain(hub, 1)
        assert ledger.chain(hub) == 1
        assert early < min(chained(hub))
        late.commit()
    assert ledger.chain(hub) == 1 and chained(hub)[-1] == early
    sound(hub)


def test_chainers_at_once_make_one_chain(hub: sa.Engine) -> None:
    ended = threading.Event()
    counts: list[int] = []

    def work(wait: bool) -> None:
        while not ended.is_set():
            counts.append(ledger.chain(hub, wait=wait, batch=9))

    with ThreadPoolExecutor(8) as pool:
        chainers = [pool.submit(work, wait) for wait in (True, False, True)]
        writers = [pool.submit(ledgers.plain, hub, 60, start) for start in (0, 60, 120, 180)]
        for writer in writers:
            writer.result()
        ended.set()
        for chainer in chainers:
            chainer.result()
    assert sum(counts) + ledger.chain(hub) == 240
    assert sound(hub).records == 240


def test_a_chainer_that_was_killed_leaves_nothing_half(hub: sa.Engine) -> None:
    ledgers.plain(hub, 400)
    script = "from hub.exchange import ledger\nwhile True: ledger.chain(batch=3)"
    seen = set()
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
        before = rows(hub, "SELECT position FROM exchange_head")[0].position
        deadline = time.monotonic() + 60
        while rows(hub, "SELECT position FROM exchange_head")[0].position < before + 40:
            assert time.monotonic() < deadline and process.poll() is None
        process.kill()
        process.wait()
        seen.add(sound(hub).records)
        [counted] = rows(hub, "SELECT (SELECT count(*) FROM exchange_chain) + (SELECT count(*) FROM exchange_pending)")
        assert counted == (400,)
    assert len(seen) == 3 and max(seen) < 400
    ledger.chain(hub)
    assert sound(hub).records == 400


def test_a_connection_lost_in_the_middle_leaves_nothing_half(hub: sa.Engine) -> None:
    ledgers.plain(hub, 5)
    with pytest.raises(sa.exc.OperationalError), hub.begin() as connection:
        end = ledger._locked(connection, True)
        assert end is not None
        bind = {"after": uuid.UUID(int=0), "limit": 100, "position": end.position, "chain": end.chain}
        connection.execute(ledger._CHAIN, bind)
        killed = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        rows(hub, "SELECT pg_terminate_backend(:killed)", killed=killed)
        connection.execute(sa.text("SELECT 1"))
    assert rows(hub, "SELECT count(*) FROM exchange_pending") == [(5,)] and chained(hub) == []
    assert ledger.chain(hub) == 5
    sound(hub)


def test_a_record_that_is_gone_does_not_stop_the_others(hub: sa.Engine) -> None:
    ledgers.plain(hub, 6)
    ledgers.changed(hub, "DELETE FROM exchange_record WHERE id IN (SELECT id FROM exchange_record ORDER BY id LIMIT 3)")
    assert ledger.chain(hub, batch=2) == 3
    assert rows(hub, "SELECT count(*) FROM exchange_pending") == [(3,)]
    [found] = ledger_verify.verify(hub, ask=()).differences
    assert (found.code, found.found) == ("chain-pending-lost", 3)


def test_an_end_that_somebody_took_away_is_said(hub: sa.Engine) -> None:
    ledgers.plain(hub, 1)
    ledgers.changed(hub, "DELETE FROM exchange_head")
    with pytest.raises(FatalError) as refused:
        ledger.chain(hub)
    assert refused.value.code == "ledger-head-missing"
    assert rows(hub, "SELECT count(*) FROM exchange_pending") == [(1,)]


def test_who_waits_too_long_for_another_is_told(hub: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PATIENCE", "50ms")
    with hub.begin() as connection:
        ledger._locked(connection, True)
        with pytest.raises(RetriableError) as refused:
            ledger.chain(hub)
    assert refused.value.code == "ledger-busy"


def test_it_looks_up_what_waits_and_reads_nothing_else(hub: sa.Engine) -> None:
    """However large the ledger, whatever the planner was told of it."""
    ledgers.many(hub, 20_000)
    assert ledger.chain(hub) == 20_000
    ledgers.plain(hub, 3)
    bind = {"after": uuid.UUID(int=0), "limit": ledger.BATCH, "position": 20_000, "chain": bytes(32)}
    explained = sa.text(f"EXPLAIN {ledger._CHAIN.text}").bindparams(*ledger._CHAIN._bindparams.values())
    for statistics in ("", "ANALYZE exchange_record, exchange_chain", "ANALYZE exchange_pending"):
        with hub.begin() as connection:
            connection.execute(sa.text(statistics or "SELECT 1"))
            plan = "\n".join(connection.scalars(explained, bind))
        assert re.search(r"Index Cond: \(\(id = \S+\) AND \(recorded_at = \S+\)\)", plan), plan
        month = partitions.name_of("exchange_record", dt.datetime.now(dt.UTC).date())
        assert not re.search(rf"Seq Scan on ({month}|exchange_chain)", plan), plan  # empty months cost nothing


def test_in_the_background(hub: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chainers = [ledger.Chainer(hub, seconds=0.05) for _ in range(2)]
    for chainer in chainers:
        chainer.start()
    try:
        ledgers.plain(hub, 40)
        _until(lambda: rows(hub, "SELECT count(*) FROM exchange_pending") == [(0,)])
        chainers[1].stop()
        ledgers.changed(hub, "ALTER TABLE exchange_pending RENAME TO away")  # the store fails
        _until(lambda: bool(caplog.records))
        time.sleep(0.3)
        assert len(caplog.records) == 1, "said once, not every time"
        ledgers.changed(hub, "ALTER TABLE away RENAME TO exchange_pending")
        ledgers.plain(hub, 5, 40)
        _until(lambda: len(chained(hub)) == 45)
    finally:
        for chainer in chainers:
            chainer.stop()
    assert not any(chainer._thread.is_alive() for chainer in chainers)
    assert sound(hub).records == 45
    assert ledger.Chainer(hub).stop() is None, "one that never began"


def _until(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
