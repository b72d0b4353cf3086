"""The way most lookups take, over real HTTP: the same answers, each to whom it is about, stored before it is given."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from bench.store import codes
from hub import agreements, database, records
from hub.api import hot, lanes
from hub.api.hot import Hot
from hub.knowledge import Snapshot
from mappings.items import Item
from tests import stored
from tests.serving import LICENCE, Hub, filled_hub

FIRMS = codes(0, 60).to_pylist()


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub.sign_in()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each statement answered."""
    sizes: list[int] = []
    real = lanes.Lanes._asked

    async def counting(self: lanes.Lanes, connection: Any, together: Any) -> Any:
        sizes.append(len(together))
        return await real(self, connection, together)

    monkeypatch.setattr(lanes.Lanes, "_asked", counting)
    return sizes


def alike(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("answer", "asked_at", "as_of")}


def test_the_answer_is_the_same_either_way(
    hub: Hub, taken: list[int], monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    questions: list[dict[str, Any]] = [
        {},
        {
            "facts": {"legal_representative_in_person": True},
            "roles": {"legal_representative": f"cn.ric:{stored.RESIDENT}"},
        },
        {"id": f"cn.uscc:{FIRMS[0]}", "case": "31-1", "purpose": "handle"},
        {"items": ["demo-elder-card"], "id": f"cn.ric:{stored.RESIDENT}"},
    ]
    ours = _hot(hub)
    for question in questions:
        for language in ("zh", "en"):
            with subtests.test(question=sorted(question), language=language):
                given = {}
                for on in (True, False):
                    monkeypatch.setattr(ours, "on", on)
                    before = len(taken)
                    answer = hub.post(
                        "/v1/lookups", json={"items": ["demo-food-permit"], "id": LICENCE, **question},
                        headers={"Accept-Language": language},
                    )  # fmt: skip
                    assert answer.status_code == 200, answer.text
                    assert len(taken) - before == on
                    assert answer.headers["content-language"] == language
                    given[on] = answer.json()["answers"]
                assert [alike(one) for one in given[True]] == [alike(one) for one in given[False]]
                for one in (*given[True], *given[False]):
                    kept = records.explain(database.engine(), one["answer"])
                    assert (kept["body"], kept["replay"]) == (one, "same")


def test_many_at_once_each_hear_their_own(hub: Hub, store: sa.Engine, taken: list[int]) -> None:
    held = {
        code: stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", code))
        for code in FIRMS[::2]
    }

    def ask(code: str) -> tuple[str, dict[str, Any]]:
        [answer] = hub.lookup(id=f"cn.uscc:{code}").json()["answers"]
        with store.connect() as connection:
            kept = connection.scalar(
                sa.text("SELECT count(*) FROM answer WHERE id::text = :id"), {"id": answer["answer"]}
            )
        assert kept == 1, "given before it was committed"
        return code, answer

    times = set()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for code, answer in pool.map(ask, FIRMS * 3):
            times.add(answer["asked_at"])
            licence = answer["requirements"][0]
            if code in held:
                assert [one["holding"] for one in licence["holdings"]] == [held[code]]
            else:
                assert licence["disposition"] == "submit"
    assert sum(taken) == 3 * len(FIRMS) and max(taken) > 1, "none were answered together"
    assert len(times) == 3 * len(FIRMS), "answers of one time belong to one question"


def test_who_sends_no_body_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "BODY_SECONDS", 0.3)
    place = urlsplit(hub.base)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/lookups HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        )
        assert connection.recv(20).startswith(b"HTTP/1.1 408")


def test_a_fault_in_front_costs_nobody_an_answer(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, taken: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(code: str, on: dt.date) -> Item:
        raise RuntimeError(LICENCE)

    monkeypatch.setattr(hot, "in_force", faulty)
    assert hub.lookup().status_code == 200
    assert taken == []
    assert "RuntimeError" in caplog.text and LICENCE not in caplog.text


def test_a_lane_decides_under_the_snapshot_it_read_under(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another lane brings a newer snapshot between this one's statement and its decision."""
    assert hub.lookup().status_code == 200
    real = lanes.Lanes._read

    async def overtaken(self: lanes.Lanes, connection: Any, together: Any) -> Any:
        found = await real(self, connection, together)
        self.known = Snapshot("another", [])
        return found

    monkeypatch.setattr(lanes.Lanes, "_read", overtaken)
    [answer] = hub.lookup(id=f"cn.uscc:{FIRMS[5]}").json()["answers"]
    assert answer["requirements"][0]["reason_code"] == "absent", "the source that it was read under is known"


def test_what_changes_is_seen_at_once(hub: Hub, store: sa.Engine, taken: list[int]) -> None:
    def licence() -> str:
        return str(hub.lookup(id=f"cn.uscc:{FIRMS[1]}").json()["answers"][0]["requirements"][0]["reason_code"])

    assert licence() == "absent"
    stored.source(store, "sh-amr-enterprises", "business-licence", succeeded=stored.NOW - dt.timedelta(days=9))
    assert licence() == "source-late"
    stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", FIRMS[1]))
    assert licence() == "held"
    assert len(taken) == 3
    agreements.remove("hall-1")
    assert hub.lookup().status_code == 401
    agreements.add("hall-1", None, "Hall", ["demo-elder-card"], ["handle"])
    hub.secret = "other"
    assert hub.lookup().status_code == 401, "a token from before the agreement"


def test_a_connection_that_is_lost_costs_nobody_an_answer(hub: Hub, store: sa.Engine) -> None:
    assert hub.lookup().status_code == 200
    with store.begin() as connection:
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'yici-lanes'"
        assert connection.scalar(sa.text(ended)) == 1
    assert [hub.lookup().status_code for _ in range(3)] == [200, 200, 200]


def _hot(hub: Hub) -> Hot:
    """What stands in front of the served application, which makes it at its first request."""
    hub.lookup()
    found: Hot = hub.app.state.hot
    assert found.lanes
    return found
