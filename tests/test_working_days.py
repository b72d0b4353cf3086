"""hub/working_days.py: the State Council's calendar, and no guess beyond it."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import FatalError
from hub import working_days
from hub.working_days import Calendar, after, between, is_working_day

DAY = dt.date.fromisoformat


@pytest.mark.parametrize(
    ("day", "works"),
    [
        ("2025-10-08", False),  # the last day of the long holiday
        ("2025-09-28", True),  # a Sunday that is worked for it
        ("2025-10-11", True),  # a Saturday that is worked for it
        ("2026-02-23", False),  # a Monday of the Spring Festival
        ("2026-02-28", True),  # a Saturday worked for it
        ("2026-02-21", False),
        ("2018-12-31", False),  # a Monday, by the notice for 2019
        ("2018-12-29", True),  # a Saturday, by the same
    ],
)
def test_the_calendar_is_the_state_councils(day: str, works: bool) -> None:
    assert is_working_day(DAY(day)) is works


@pytest.mark.parametrize(
    ("filed", "due"),
    [
        ("2025-06-03", "2025-06-17"),  # no holiday between: two weeks
        ("2025-09-26", "2025-10-16"),  # over the long holiday, with a Sunday and a Saturday worked
        ("2025-06-07", "2025-06-20"),  # filed on a Saturday
        ("2026-02-14", "2026-03-06"),  # filed on a Saturday that is worked, before the Spring Festival
    ],
)
def test_ten_working_days(filed: str, due: str) -> None:
    assert after(DAY(filed), 10) == DAY(due)
    assert between(DAY(filed), DAY(due)) == 10 and between(DAY(due), DAY(filed)) == -10


def test_a_year_that_is_not_there_is_an_error_that_names_it() -> None:
    last = working_days._calendar().last
    with pytest.raises(FatalError) as refused:
        after(dt.date(last, 12, 24), 10)
    assert refused.value.code == "calendar-year-missing" and refused.value.values["year"] == last + 1
    assert working_days.PACKAGE in str(refused.value) and str(last + 1) in str(refused.value)
    with pytest.raises(FatalError):
        is_working_day(dt.date(2003, 12, 28))


def test_the_end_of_a_year_waits_for_the_notice_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 2018, before the notice for 2019, Monday 31 December looked like a working day."""
    known = working_days._calendar()
    monkeypatch.setattr(working_days, "_calendar", lambda: Calendar(2004, 2018, known.works))
    assert is_working_day(DAY("2018-12-28"))
    with pytest.raises(FatalError) as refused:
        is_working_day(DAY("2018-12-31"))
    assert refused.value.values["year"] == 2019


def test_no_notice_has_moved_earlier_days_of_the_year_before() -> None:
    from chinese_calendar.constants import holidays, workdays

    moved = [day for day in (*holidays, *workdays) if day.month == 12]
    assert moved and all((day.month, day.day) >= working_days.MOVED_FROM for day in moved)


@given(st.dates(DAY("2005-01-01"), DAY("2026-06-01")), st.integers(1, 30))
def test_counting_back_and_forth(day: dt.date, count: int) -> None:
    due = after(day, count)
    assert between(day, due) == count and is_working_day(due) and due > day
