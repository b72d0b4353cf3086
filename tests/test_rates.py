"""Limits per client: a second's worth at once, then as many as agreed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.api import rates
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
