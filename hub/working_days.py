"""Working days 工作日 by the State Council's yearly calendar, swapped weekends included (PyPI ``chinesecalendar``).

A year that the installed calendar lacks is an error that says what to update, never a guess: which Saturdays are worked is
decided anew each November. The notice for a year has moved days at the end of the year before (29 to 31 December 2018), so
these are known only once the following year is.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from typing import NamedTuple

from connectors.errors import FatalError

PACKAGE = "chinesecalendar"
MOVED_FROM = (12, 29)  # month and day: from here on the following year's notice has its word; earlier it never had
_ONE = dt.timedelta(days=1)


class Calendar(NamedTuple):
    """The years ``first`` to ``last`` of the State Council's calendar."""

    first: int
    last: int
    works: Callable[[dt.date], bool]


def is_working_day(day: dt.date) -> bool:
    """FatalError ``calendar-year-missing`` names the year that the calendar lacks."""
    calendar = _calendar()
    year = day.year + ((day.month, day.day) >= MOVED_FROM)
    for needed in (day.year, year):
        if not calendar.first <= needed <= calendar.last:
            raise FatalError(
                "calendar-year-missing", year=needed, package=PACKAGE, first=calendar.first, last=calendar.last
            )
    return calendar.works(day)


def after(day: dt.date, count: int) -> dt.date:
    """The ``count``-th working day after ``day``, which does not count itself (Civil Code Art 201). Error as
    :func:`is_working_day`."""
    while count > 0:
        day += _ONE
        count -= is_working_day(day)
    return day


def between(start: dt.date, end: dt.date) -> int:
    """Working days after ``start`` up to and with ``end``; negative when ``end`` lies before. Error as
    :func:`is_working_day`."""
    if end < start:
        return -between(end, start)
    return sum(is_working_day(start + _ONE * step) for step in range(1, (end - start).days + 1))


@functools.cache
def _calendar() -> Calendar:
    import chinese_calendar
    from chinese_calendar.constants import holidays

    return Calendar(min(holidays).year, max(holidays).year, chinese_calendar.is_workday)
