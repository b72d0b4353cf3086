"""What was known when: the feed rebuilds the store, a reader misses nothing, and answers of the past stay what they were."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from hub import database, holdings, knowledge
from hub.holdings import Freshness
from hub.home import identifier_text, keyed_hash
from hub.knowledge import Shape
from tests import deliveries
from tests.deliveries import DAYS, File, Row, World, migrated, profile, rows, sizes, world

__all__ = ["migrated", "world"]
MATERIAL = "business-licence"
Said = tuple[dict[bytes, list[tuple[str, Shape]]], list[Freshness]]


def asked() -> dict[bytes, tuple[str, str]]:
    """Everybody a licence of these tests may belong to."""
    hashing = keyed_hash()
    codes = [deliveries.code(number) for number in (*range(1, 40), *range(deliveries.MARKS, deliveries.MARKS + 9))]
    return {hashing.of(identifier_text("cn.uscc", code)): ("cn.uscc", code) for code in codes}


def known(engine: sa.Engine, at: dt.datetime | None = None) -> Said:
    """What the store says of everybody now, or said at ``at``. A version keeps the row that stood behind it, not those
    that agreed, nor whether any did not; a source counts from its first success."""
    with engine.connect() as connection:
        if at is None:
            found, snapshot = knowledge.current(connection, asked(), [MATERIAL])
            subjects, sources = {digest: found.subject(digest) for digest in asked()}, snapshot.sources
        else:
            then = holdings.recorded(connection, asked(), [MATERIAL], at)
            named = knowledge.parties(then, {digest.hex(): digest for digest in asked()})
            subjects, sources = {digest: named[digest.hex()] for digest in asked()}, then.sources
    said = {
        digest: [(one.key, one.shape._replace(conflicting=False)) for one in subject.found]
        for digest, subject in subjects.items()
    }
    succeeded = sorted((one for one in sources if one.last_success_at), key=lambda one: one.source)
    return said, [one for one in succeeded if one.material == MATERIAL]


def now(engine: sa.Engine) -> dt.datetime:
    with engine.connect() as connection:
        moment = connection.scalar(sa.text("SELECT clock_timestamp()"))
    assert isinstance(moment, dt.datetime)
    return moment


@sizes(3, 100)
def test_what_was_said_after_each_merge_is_said_again_for_that_time(world: World, examples: int) -> None:
    """Withdrawals, corrections, moves and a second source, and each answer as it was."""
    world.source("xx-roster", extent="snapshot")
    world.source("xx-weak", authority=10)
    said = st.tuples(st.integers(1, DAYS), st.lists(rows(), max_size=4, unique_by=lambda row: row.key))
    files = st.builds(lambda said: File(said[0], tuple(said[1])), said)

    @profile(examples)
    @given(st.lists(st.tuples(st.sampled_from(["xx-roster", "xx-weak"]), files), min_size=2, max_size=5))
    def holds(batches: list[tuple[str, File]]) -> None:
        world.reset()
        before = now(world.engine)
        answers = [(before, known(world.engine))]
        for source, file in batches:
            world.deliver(source, [file])
            answers.append((now(world.engine), known(world.engine)))
        for at, answer in answers[1:]:
            assert known(world.engine, at) == answer
        assert _count(known(world.engine, before)) == 0
        assert world.replayed() == world.documents()

    holds()


@pytest.mark.slow
def test_sources_merged_at_once_lose_nothing_and_a_reader_misses_nothing(world: World) -> None:
    """Three sources say different things about the same licences, each in its order, all at once; a reader of the feed
    keeps a copy meanwhile, from the positions it sees."""
    names = {"xx-a": 100, "xx-b": 50, "xx-c": 100}
    licences, rounds = 30, 4
    delivered = []
    for name, authority in names.items():
        world.source(name, authority=authority)
        delivered += [
            (name, authority, "partial", File(1 + turn, tuple(
                Row(key, 1 + (key * (turn + 1) + authority) % licences, (key + turn) % 3)
                for key in range(1 + turn * 3, licences + turn)
            )))
            for turn in range(rounds)
        ]  # fmt: skip
    files = {name: [file for source, _, _, file in delivered if source == name] for name in names}

    def deliver(name: str) -> None:
        for file in files[name]:
            world.deliver(name, [file])

    def alone() -> tuple[dict[str, str], object]:
        world.reset()
        for name in names:
            deliver(name)
        return world.digest(), world.held()

    expected = alone()
    assert expected[1] == deliveries.held(delivered)
    world.reset()
    stop = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        reading = pool.submit(_follow, world, stop)
        started = time.monotonic()
        for done in [pool.submit(deliver, name) for name in names]:
            done.result(timeout=120)
        stop.set()
        copy, pages = reading.result(timeout=60)
    assert (world.digest(), world.held()) == expected
    assert copy == world.documents(), f"after {pages} pages in {time.monotonic() - started:.1f} s"
    assert pages > 2, "the reader must read while the writers write"


def _follow(world: World, stop: threading.Event) -> tuple[dict[str, object], int]:
    """A copy of what is held, kept from the feed alone, position after position, while others write."""
    copy: dict[str, object] = {}
    at, last, pages = 0, None, 0
    while True:
        over = stop.is_set()
        page = world.feed(at)
        assert [entry.position for entry in page] == list(range(at + 1, at + 1 + len(page))), "a position was missing"
        for entry in page:
            assert last is None or entry.recorded_at >= last, "a reader to a time would have missed this"
            last = entry.recorded_at
        deliveries.apply(copy, page)
        at += len(page)
        pages += bool(page)
        if over and not page:
            return copy, pages


@contextmanager
def head_locked(world: World) -> Iterator[None]:
    """Holds what a merge needs at its end, so that it stops there, everything written and nothing given out."""
    with world.engine.connect() as connection, connection.begin():
        connection.execute(sa.text("SELECT position FROM feed_head FOR UPDATE"))
        yield


class Gate:
    """Stops the next commit of a merge, all of its work done, until it is let through."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, connection: sa.Connection) -> None:
        writes = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock' AND relation = 'feed'::regclass"
        if not self.reached.is_set() and connection.scalar(sa.text(writes)):
            self.reached.set()
            assert self.open.wait(60)


@contextmanager
def commit_stopped() -> Iterator[Gate]:
    stop = Gate()
    engine = database.engine()
    sa.event.listen(engine, "commit", stop)
    try:
        yield stop
    finally:
        stop.open.set()
        sa.event.remove(engine, "commit", stop)


@pytest.mark.parametrize("place", ["before it is given out", "before it is committed"])
def test_an_answer_given_during_a_merge_is_replayed_as_it_was(world: World, place: str) -> None:
    world.source("xx-s")
    world.deliver("xx-s", [File(1, (Row(1, 1, 1), Row(2, 2, 1)))])
    second = File(2, (Row(1, 1, 2), Row(3, 3, 1)))

    def merging(pool: ThreadPoolExecutor, reached: Callable[[], bool]) -> Future[dict[str, Any]]:
        running = pool.submit(world.deliver, "xx-s", [second])
        deadline = time.monotonic() + 60
        while not reached() and time.monotonic() < deadline and not running.done():
            time.sleep(0.01)
        assert reached() and not running.done()
        return running

    with ThreadPoolExecutor(1) as pool:
        if place == "before it is given out":
            with head_locked(world):
                running = merging(pool, lambda: world.count(_WAITING) > 0)
                at, answer = now(world.engine), known(world.engine)
            running.result(timeout=60)
        else:
            with commit_stopped() as stop:
                running = merging(pool, stop.reached.is_set)
                at, answer = _answer(world)
                stop.open.set()
                running.result(timeout=60)
    assert _count(known(world.engine)) == _count(answer) + 2, "a licence and a mark more"
    assert known(world.engine, at) == answer


_WAITING = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
  AND query LIKE '%feed_head%'"""


def _count(said: Said) -> int:
    return sum(map(len, said[0].values()))


def _answer(world: World) -> tuple[dt.datetime, Said]:
    """An answer of now and its time: that of the last merge it could see, which no later one shares."""
    found = known(world.engine)
    with world.engine.connect() as connection:
        at = connection.scalar(sa.text("SELECT recorded_at FROM feed_head"))
    assert isinstance(at, dt.datetime)
    return at, found
