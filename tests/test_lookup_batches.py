"""``POST /v1/lookups/batch`` over real HTTP: a line for each subject, whatever happens to the store, the agreement, the item or
the caller meanwhile."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
import requests
import sqlalchemy as sa

from bench.store import codes
from hub import answers, catalogue, clock, embedded
from hub.api import lanes, lookup_batches
from hub.api.app import create
from hub.api.hot import Hot
from mappings.items import Item
from tests import stored
from tests.serving import LICENCE, Hub, filled_hub, own_server, problem, served

FIRMS = codes(0, 60).to_pylist()
FOOD = "demo-food-permit"
Between = Callable[[int], Awaitable[None]]


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub.sign_in()


def ask(hub: Hub, count: int, **more: Any) -> requests.Response:
    subjects = [{"id": f"cn.uscc:{FIRMS[place % len(FIRMS)]}", "case": str(place)} for place in range(count)]
    return hub.post("/v1/lookups/batch", json={"items": [FOOD], "subjects": subjects}, **more)


def told(answer: requests.Response, count: int) -> list[str]:
    """What is said of each subject: the code of its problem, or nothing. Nobody is left out."""
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["subject"] for line in lines] == list(range(count))
    assert all(("problem" in line) != ("answers" in line) for line in lines)
    return [line["problem"]["code"] if "problem" in line else "" for line in lines]


@pytest.fixture
def between(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[[Between], None]:
    """Has something done between the preparation of a slice and its statements; it hears which slice it is, from 0."""
    real = lanes.Lanes._asked

    def put(step: Between) -> None:
        async def stepping(self: lanes.Lanes, connection: Any, together: Any) -> Any:
            case = together[0].asked.question.case
            if case is not None:
                await step(int(case) // lookup_batches.SLICE)
            return await real(self, connection, together)

        monkeypatch.setattr(lanes.Lanes, "_asked", stepping)

    hub.lookup()  # now there are lanes
    return put


def test_a_line_for_each(hub: Hub, store: sa.Engine) -> None:
    key = stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", FIRMS[2]))
    subjects: list[dict[str, Any]] = [{"id": f"cn.uscc:{code}"} for code in (FIRMS * 17)[:1000]]
    subjects[7] = {"id": "cn.uscc:91310117MA1J3AJ43X"}
    subjects[8] = {"id": f"cn.uscc:{FIRMS[8]}", "facts": {"no_such_fact": True}}
    answer = hub.post("/v1/lookups/batch", json={"items": ["demo-food-permit"], "subjects": subjects})
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["subject"] for line in lines] == list(range(len(subjects)))
    problems = {line["subject"]: line["problem"]["code"] for line in lines if "problem" in line}
    assert problems == {7: "identifier-invalid", 8: "fact-unknown"}
    held = [
        line["subject"] for line in lines if "held" in str(line.get("answers", [{}])[0].get("requirements", [{}])[0])
    ]
    assert set(range(2, 1000, len(FIRMS))) <= set(held) and key in answer.text
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM answer")) == len(subjects) - 2


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"subjects": []}, 422, "body-invalid"),
        ({"subjects": [{"id": LICENCE}] * 1001}, 422, "body-invalid"),
        ({"items": ["no-such-item"]}, 404, "item-unknown"),
        ({"purpose": "curiosity"}, 403, "purpose-not-agreed"),
        ({"subjects": [{"id": 5}]}, 422, "body-invalid"),
    ],
)
def test_what_is_wrong_with_a_whole_batch(hub: Hub, more: dict[str, Any], status: int, code: str) -> None:
    answer = hub.post("/v1/lookups/batch", json={"items": ["demo-food-permit"], "subjects": [{"id": LICENCE}], **more})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_slices_are_under_way_together(hub: Hub, between: Callable[[Between], None]) -> None:
    """The first with two more, and never more than there is room for."""
    inside, most, met = 0, 0, asyncio.Event()
    real = lanes.Lanes._answered

    async def meeting(place: int) -> None:
        nonlocal most
        most = max(most, inside)
        if inside == lanes.BATCHES:
            met.set()
        await asyncio.wait_for(met.wait(), 20)

    async def counting(self: lanes.Lanes, together: Any) -> Any:
        nonlocal inside
        inside += 1
        try:
            return await real(self, together)
        finally:
            inside -= 1

    between(meeting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes.Lanes, "_answered", counting)
        assert set(told(ask(hub, 700), 700)) == {""}
    assert most == lanes.BATCHES


ERRORS = [
    (asyncpg.AdminShutdownError("terminating connection due to administrator command"), 503, "store-unavailable"),
    (asyncpg.InternalClientError("got result for unknown protocol state 3"), 503, "store-unavailable"),
    (asyncpg.QueryCanceledError("canceling statement due to user request"), 503, "store-unavailable"),
    (asyncpg.DiskFullError("could not extend file"), 503, "store-unavailable"),
    (ConnectionRefusedError(), 503, "store-unavailable"),
    (asyncpg.UndefinedTableError("no relation"), 503, "store-not-migrated"),
    (asyncpg.CheckViolationError(LICENCE), 500, "internal"),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=[type(error).__name__ for error, *_ in ERRORS])
def test_a_failure_of_the_store_has_one_name(
    hub: Hub, between: Callable[[Between], None], caplog: pytest.LogCaptureFixture,
    error: Exception, status: int, code: str,
) -> None:  # fmt: skip
    """In the first slice the whole batch is told; behind it each subject, and the stream has its end."""
    for begins in (0, 1):

        async def failing(place: int, begins: int = begins) -> None:
            if place >= begins:
                raise error

        between(failing)
        answer = ask(hub, 250)
        if begins:
            assert told(answer, 250) == [""] * 100 + [code] * 150
        else:
            problem(answer, status, code)
    assert LICENCE not in caplog.text


def test_a_store_lost_once_costs_no_answer(hub: Hub, between: Callable[[Between], None]) -> None:
    met = set()

    async def once(place: int) -> None:
        if place not in met:
            met.add(place)
            raise asyncpg.InternalClientError

    between(once)
    assert told(ask(hub, 250), 250) == [""] * 250


def test_a_connection_cut_inside_copy(
    hub: Hub, store: sa.Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server ends it when part of the rows has been sent: then asyncpg throws what no error of a store is."""
    real = lanes.answer_rows.copied
    cut = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state = 'active' AND query LIKE 'COPY%'"
    )

    def end() -> None:  # asyncpg sends rows before the server has begun to take them
        with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            assert until(lambda: connection.scalar(cut) > 0)

    def copied(rows: Any) -> Any:
        async def source() -> AsyncIterator[bytes]:
            whole = bytes(real(rows))
            yield whole[:4000]
            if int(rows[0].case) >= 100:
                await asyncio.to_thread(end)
                await asyncio.sleep(0.1)
            yield whole[4000:]

        return source()

    hub.lookup()
    monkeypatch.setattr(lanes.answer_rows, "copied", copied)
    monkeypatch.setattr(lookup_batches, "AHEAD", 0)  # nobody else's COPY is under way
    assert told(ask(hub, 250), 250) == [""] * 100 + ["store-unavailable"] * 150
    assert "ConnectionDoesNotExistError" in caplog.text


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_connections_cut_for_as_long_as_batches_run(
    hub: Hub, store: sa.Engine, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """At any moment, by the server itself; rows are made to linger a little."""
    hub.lookup()
    with store.begin() as connection:
        connection.execute(sa.text(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.0003); RETURN NEW; END $$"
        ))  # fmt: skip
        connection.execute(
            sa.text("CREATE TRIGGER linger BEFORE INSERT ON answer FOR EACH ROW EXECUTE FUNCTION linger()")
        )
    over = threading.Event()

    def cut() -> None:
        each = sa.text(
            f"SELECT count({how}(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'yici-lanes' AND state = 'active' AND random() < 0.08"
        )
        with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not over.wait(0.004):
                connection.execute(each)

    cutting = threading.Thread(target=cut)
    cutting.start()
    seen: Counter[str] = Counter()
    try:
        for _ in range(12):
            answer = ask(hub, 500)
            if answer.status_code == 200:
                seen.update(told(answer, 500))
            else:
                problem(answer, 503, "store-unavailable")
    finally:
        over.set()
        cutting.join()
    assert set(seen) <= {"", "store-unavailable"}
    assert "Error" in caplog.text, "nothing was cut"
    assert told(ask(hub, 250), 250) == [""] * 250
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM answer")) > seen[""]


def test_tables_that_go_in_the_middle(hub: Hub, store: sa.Engine, between: Callable[[Between], None]) -> None:
    def drop() -> None:
        with store.begin() as connection:
            connection.execute(sa.text("ALTER TABLE answer DROP COLUMN trace"))

    async def dropping(place: int) -> None:
        if place == 5:
            await asyncio.to_thread(drop)

    between(dropping)
    found = told(ask(hub, 1000), 1000)
    assert found[0] == "" and set(found) == {"", "store-not-migrated"}
    problem(ask(hub, 250), 503, "store-not-migrated")
    problem(hub.lookup(), 503, "store-not-migrated")


def test_a_server_that_is_killed_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    with own_server(monkeypatch) as server:
        process = int((embedded.data_folder(server) / "postmaster.pid").read_text().split()[0])
        real = lanes.Lanes._asked

        async def killing(self: lanes.Lanes, connection: Any, together: Any) -> Any:
            if together[0].asked.question.case == "600":
                os.kill(process, signal.SIGQUIT)  # every session is broken off at once
            return await real(self, connection, together)

        with served(create()) as base:
            hub = Hub(base, None, FOOD).sign_in()  # type: ignore[arg-type]
            hub.lookup()
            monkeypatch.setattr(lanes.Lanes, "_asked", killing)
            found = told(ask(hub, 1000), 1000)
            assert found[0] == "" and set(found) == {"", "store-unavailable"}
            problem(ask(hub, 250), 503, "store-unavailable")


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("UPDATE agreement SET valid_to = now()", "agreement-ended"),
        ("UPDATE agreement SET items = '{demo-elder-card}'", "item-not-agreed"),
        ("DELETE FROM agreement", "token-invalid"),
    ],
)
def test_an_agreement_that_ends_in_the_middle(
    hub: Hub, store: sa.Engine, between: Callable[[Between], None], ends: str, code: str
) -> None:
    """From then on nobody is answered about, and what is wrong is what a single question is told."""

    def end() -> None:
        with store.begin() as connection:
            connection.execute(sa.text(ends))

    async def ending(place: int) -> None:
        if place == 5:
            await asyncio.to_thread(end)

    between(ending)
    found = told(ask(hub, 1000), 1000)
    assert found[0] == "" and found[-1] == code and set(found) == {"", code}
    assert hub.lookup().json()["code"] == code


class Clock:
    """The time of day of what answers, set by a test: noon at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = dt.datetime.now(clock.CHINA)
        self.ahead = now.replace(hour=12, minute=0) - now
        mine = self

        class Moved(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> Any:
                return dt.datetime.now(tz) + mine.ahead

        moved = SimpleNamespace(**{**vars(dt), "datetime": Moved})
        for module in (lookup_batches, lanes, answers):
            monkeypatch.setattr(module, "dt", moved)
        self.day = clock.today(dt.datetime.now(dt.UTC) + self.ahead)

    def midnight(self) -> None:
        self.ahead += dt.timedelta(days=1)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Clock, bool], None]:
    """Has the item end on the clock's day, with a successor or a next version."""

    def put(time_: Clock, again: bool) -> None:
        published: dict[str, tuple[Item, ...]] = dict(catalogue.published())
        [item] = published[FOOD]
        last = item.model_copy(
            update={
                "in_force": item.in_force.model_copy(update={"to": time_.day}),
                "successor": None if again else "demo-elder-card",
            }
        )
        following = item.model_copy(
            update={
                "version": item.version + 1,
                "in_force": item.in_force.model_copy(update={"from_": time_.day + dt.timedelta(days=1)}),
            }
        )
        ours: Mapping[str, tuple[Item, ...]] = {**published, FOOD: (last, following) if again else (last,)}
        monkeypatch.setattr(catalogue, "published", lambda: ours)

    return put


@pytest.mark.parametrize("passes", [0, 5])
@pytest.mark.parametrize("again", [False, True])
def test_midnight_in_a_batch(
    hub: Hub, between: Callable[[Between], None], monkeypatch: pytest.MonkeyPatch,
    ending: Callable[[Clock, bool], None], passes: int, again: bool,
) -> None:  # fmt: skip
    """Slices that are prepared before are decided after; those behind them are prepared after. An item that ended is told with
    its successor; where its next version has begun, that one answers."""
    time_ = Clock(monkeypatch)
    ending(time_, again)

    async def passing(place: int) -> None:
        if place == passes:
            time_.midnight()

    between(passing)
    answer = ask(hub, 1000)
    found = told(answer, 1000)
    if again:
        assert set(found) == {""}
        return
    assert found[-1] == "item-retired" and set(found) <= {"", "item-retired"}
    assert (found[0] == "") is bool(passes)
    last = json.loads(answer.text.splitlines()[-1])["problem"]
    assert (last["status"], last["successor"]) == (422, "demo-elder-card") and time_.day.isoformat() in last["detail"]


def test_a_caller_who_leaves_leaves_nothing_running(
    hub: Hub, store: sa.Engine, between: Callable[[Between], None]
) -> None:
    begun = 0

    async def hanging(place: int) -> None:
        nonlocal begun
        begun += 1
        if place > 1:
            await asyncio.sleep(3600)

    ours: Hot = hub.app.state.hot
    [loop] = ours.lanes

    def tasks() -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), loop).result(20)

    before = tasks()
    between(hanging)
    with requests.Session() as leaving:
        leaving.trust_env, leaving.headers = False, hub.session.headers
        subjects = [{"id": LICENCE, "case": str(place)} for place in range(1000)]
        answer = leaving.post(
            f"{hub.base}/v1/lookups/batch", json={"items": [FOOD], "subjects": subjects}, stream=True, timeout=30
        )
        assert answer.status_code == 200 and answer.raw.readline().startswith(b'{"subject":0,')
        assert until(lambda: begun >= 2 + lanes.BATCHES) and tasks() > before
        answer.close()
    assert until(lambda: tasks() <= before), "slices that nobody hears"
    assert begun == 2 + lanes.BATCHES, "no further slice was begun"
    busy = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'yici-lanes' AND state <> 'idle'"
    )
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert until(lambda: connection.scalar(busy) == 0)
    between(_nothing)
    assert told(ask(hub, 1000), 1000) == [""] * 1000, "its places and connections are free again"


async def _nothing(place: int) -> None:
    pass


def until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true before long."""
    deadline = time.monotonic() + 20
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
