"""connectors/pace.py: requests go out evenly, never faster than agreed."""

from __future__ import annotations

import time

import pytest

from connectors.pace import Pace


class Clock:
    """Time that passes only when somebody sleeps or ``later`` is called."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pace(self, per_second: float) -> Pace:
        return Pace(per_second, lambda: self.now, self.sleep)


def test_the_first_goes_at_once_the_rest_evenly() -> None:
    clock = Clock()
    pace = clock.pace(4)
    for _ in range(5):
        pace.wait()
    assert clock.slept == pytest.approx([0.25] * 4)


def test_time_that_passed_anyway_counts_and_is_not_made_up_for() -> None:
    clock = Clock()
    pace = clock.pace(2)
    pace.wait()
    clock.now += 0.2
    pace.wait()
    assert clock.slept == pytest.approx([0.3])
    clock.now += 60
    pace.wait()
    assert len(clock.slept) == 1, "long enough ago"
    pace.wait()
    assert clock.slept == pytest.approx([0.3, 0.5]), "a minute of silence is no leave to hurry"


def test_by_the_real_clock() -> None:
    pace, start = Pace(50), time.monotonic()
    for _ in range(6):
        pace.wait()
    assert 0.1 <= time.monotonic() - start < 5
