"""Limits per client: a second's worth at once, then as many as agreed."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator

import pytest
import requests
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.api import lanes, rates
from hub.api.rates import Rates
from tests.serving import LICENCE, Hub, filled_hub, problem


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    return now


def taken(limits: Rates, client: str, rate: int, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            limits.take(client, rate)
        except UsageError:
            continue
        count += 1
    return count


def test_a_second_at_once_then_as_agreed(clock: list[float]) -> None:
    limits = Rates()
    assert taken(limits, "a", 10, 50) == 11
    assert taken(limits, "b", 10, 1) == 1, "each client for itself"
    clock[0] += 0.5
    assert taken(limits, "a", 10, 50) == 5
    clock[0] += 60
    assert taken(limits, "a", 10, 50) == 11, "what was not used is not saved up"


def test_a_batch_is_paid_for_afterwards(clock: list[float]) -> None:
    limits = Rates()
    limits.take("a", 100, 1000)
    with pytest.raises(UsageError) as refused:
        limits.take("a", 100)
    assert refused.value.values["seconds"] == 9
    clock[0] += 9.01
    limits.take("a", 100)


def test_only_who_owes_is_remembered(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "REMEMBERED", 3)
    limits = Rates()
    for name in "abc":
        limits.take(name, 1000)
    clock[0] += 1
    limits.take("d", 1000)
    assert list(limits._empty) == ["d"]


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub.sign_in()


def test_over_http(hub: Hub, store: sa.Engine) -> None:
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE agreement SET rate = 1"))
    asked = {"items": ["demo-food-permit"], "id": LICENCE}
    answers = [hub.post("/v1/lookups", json=asked) for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 1 <= len(answers) - len(refused) < 20
    problem(refused[0], 429, "rate-exceeded")
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert problem(hub.get("/v1/items"), 429, "rate-exceeded"), "the other routes count too"


def test_a_client_of_whom_nothing_is_known_yet_is_counted_from_the_first(hub: Hub, store: sa.Engine) -> None:
    """Right after a start, all at once: no more are answered than later."""
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE agreement SET rate = 1"))
    kept = sa.text("SELECT count(*) FROM answer")

    def ask(_: int) -> int:
        asked = {"items": ["demo-food-permit"], "id": LICENCE}
        return requests.post(f"{hub.base}/v1/lookups", json=asked, headers=headers, timeout=30).status_code

    def burst() -> tuple[int, int]:
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            given = list(pool.map(ask, range(80)))
        assert set(given) <= {200, 429}
        with store.connect() as connection:
            return given.count(200), int(connection.scalar(kept) or 0)

    headers = {"Authorization": hub.session.headers["Authorization"]}
    began = time.monotonic()
    answered, stored = burst()
    assert 1 <= answered == stored <= 3 + (time.monotonic() - began)
    [found] = hub.app.state.hot.lanes.values()
    found.agreements.clear()  # as after a start, over lanes that are there already: the way from the socket
    again, stored = burst()
    assert answered + again == stored <= 4 + (time.monotonic() - began)


def test_what_a_lane_counted_is_not_counted_again(hub: Hub, store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the short way nor, where that comes to nothing, on the ordinary one."""
    counted: list[str] = []
    real = Rates.take

    def noting(self: Rates, client: str, *more: int) -> None:
        counted.append(client)
        real(self, client, *more)

    monkeypatch.setattr(Rates, "take", noting)

    def failing(*_: object) -> bytes:
        raise RuntimeError

    for broken in (False, True):
        for _ in range(2):  # the first opens the lanes, the second comes over the wire
            counted.clear()
            with monkeypatch.context() as patch:
                if broken:
                    patch.setattr(lanes.answer_rows, "copied", failing)
                    patch.setattr(lanes, "_KEEP_ONE", "SELECT 1 / 0")
                for found in hub.app.state.hot.lanes.values():
                    found.agreements.clear()
                answer = hub.lookup()
            assert answer.status_code == 200, answer.text
            assert counted == ["hall-1"]
