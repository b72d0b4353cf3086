"""Guessing of secrets: ten tries a minute, however many are made at once."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import agreements
from hub.api import guard
from hub.api.guard import Attempts
from tests.serving import FORM, Hub, filled_hub


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    return now


def tried(attempts: Attempts, fits: bool | None, client: str = "a") -> bool:
    """Whether it was looked at."""
    try:
        with attempts.trying("here", client) as attempt:
            attempt.fits = fits
    except UsageError:
        return False
    return True


def test_so_many_failures_in_a_window(clock: list[float]) -> None:
    attempts = Attempts(allowed=3, seconds=60)
    assert [tried(attempts, False) for _ in range(5)] == [True, True, True, False, False]
    assert tried(attempts, False, "b"), "each client for itself"
    with pytest.raises(UsageError) as refused:
        attempts.check("here", "a")
    assert refused.value.values["seconds"] == 60
    clock[0] += 61
    assert tried(attempts, False) and tried(attempts, False)
    assert tried(attempts, True), "the right one"
    assert [tried(attempts, False) for _ in range(4)] == [True, True, True, False]


def test_what_came_to_nothing_is_no_attempt() -> None:
    attempts = Attempts(allowed=2)
    for _ in range(5):
        assert tried(attempts, None)
        with pytest.raises(OSError), attempts.trying("here", "a"):
            raise OSError
    assert [tried(attempts, False) for _ in range(3)] == [True, True, False]
    assert not attempts._under_way


def test_many_at_once_are_no_more_than_one_after_the_other() -> None:
    attempts, together = Attempts(allowed=4), Counter[str]()
    lock = threading.Lock()

    def one(fits: bool) -> str:
        try:
            with attempts.trying("here", "a") as attempt:
                with lock:
                    together["now"] += 1
                    together["most"] = max(together["most"], together["now"])
                time.sleep(0.02)
                with lock:
                    together["now"] -= 1
                attempt.fits = fits
        except UsageError:
            return "refused"
        return "tried"

    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        assert set(pool.map(one, [True] * 30)) == {"tried"}, "nobody is refused for the right secret"
        assert 1 < together["most"] <= 4
        assert Counter(pool.map(one, [False] * 30)) == {"tried": 4, "refused": 26}


def test_only_some_are_remembered() -> None:
    attempts = Attempts(remembered=3)
    for client in "abcd":
        tried(attempts, False, client)
    assert [client for _, client in attempts._failures] == ["b", "c", "d"]


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub


def test_over_http_sixty_guesses_at_once_are_ten(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    real = agreements.authenticate

    def looking(engine: sa.Engine, client: str, secret: str) -> bool:
        looked_at.append(secret)
        return real(engine, client, secret)

    monkeypatch.setattr(agreements, "authenticate", looking)

    def guess(secret: str) -> int:
        return hub.post("/oauth2/token", data=FORM, auth=("hall-1", secret)).status_code

    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        assert set(pool.map(guess, [hub.secret] * 30)) == {200}
        looked_at.clear()
        given = Counter(pool.map(guess, [f"wrong-{place}" for place in range(60)]))
    assert given == {401: 10, 429: 50} and len(looked_at) == 10
    assert guess(hub.secret) == 429
