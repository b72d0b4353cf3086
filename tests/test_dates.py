"""Dates and moments in the spellings that sources use."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings import dates


def day(value: str | None) -> tuple[str | None, str | None]:
    found, problems = dates.date(pa.array([value], pa.string()))
    assert found.type == pa.date32()
    return (found[0].as_py().isoformat() if found[0].is_valid else None), problems[0].as_py()


def moment(value: str, tz: str = "Asia/Shanghai") -> tuple[str | None, str | None]:
    found, problems = dates.timestamp(pa.array([value]), tz)
    assert found.type == pa.timestamp("us", "UTC")
    return (found[0].as_py().isoformat() if found[0].is_valid else None), problems[0].as_py()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2020-6-18", "2020-06-18"),
        ("20200316", "2020-03-16"),
        ("2019-9-18 0:00", "2019-09-18"),
        ("2019/9/18", "2019-09-18"),
        ("2019.09.18", "2019-09-18"),
        ("2019年9月18日", "2019-09-18"),
        ("２０１９年９月１８日", "2019-09-18"),
        ("2020-02-29", "2020-02-29"),
        ("2000-02-29", "2000-02-29"),
        ("1880-01-01", "1880-01-01"),
        ("20190918123456", "2019-09-18"),
        ("2019-09-18T12:34:56.123456Z", "2019-09-18"),
    ],
)
def test_dates(value: str, expected: str) -> None:
    assert day(value) == (expected, None)


@pytest.mark.parametrize("value", ["9999-9-9", "9999-12-31", "99991231", "9999年12月31日", "长期", "永久", " 长期 "])
def test_no_end(value: str) -> None:
    assert day(value) == (None, "long-term")
    assert moment(value) == (None, "long-term")


@pytest.mark.parametrize(
    "value", ["2019-2-30", "20190231", "2019-13-01", "1900-02-29", "0001-01-01", "0000-00-00", "18-9-2019", "abc", "2019", "2019-9"]
)  # fmt: skip
def test_unreadable(value: str) -> None:
    assert day(value) == (None, "date-unreadable")
    assert moment(value) == (None, "date-unreadable")


@pytest.mark.parametrize("value", [None, "", "-", "N/A", "null", "\\n"])
def test_nothing_is_null_without_a_problem(value: str | None) -> None:
    assert day(value) == (None, None)


def test_every_day_of_two_centuries() -> None:
    first = dt.date(1870, 1, 1)
    days = [first + dt.timedelta(number) for number in range(366 * 200)]
    for written in ("{0.year}-{0.month}-{0.day}", "{0:%Y%m%d}", "{0.year}年{0.month}月{0.day}日"):
        found, problems = dates.date(pa.array([written.format(each) for each in days]))
        assert found.equals(pa.array(days)) and problems.null_count == len(days)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2019-9-18 0:00", "2019-09-17T16:00:00+00:00"),
        ("2019-9-18", "2019-09-17T16:00:00+00:00"),
        ("20190918123456", "2019-09-18T04:34:56+00:00"),
        ("2019年9月18日 12时34分56秒", "2019-09-18T04:34:56+00:00"),
        ("2019-09-18T12:34:56Z", "2019-09-18T12:34:56+00:00"),
        ("2019-09-18T12:34:56.5+08:00", "2019-09-18T04:34:56.500000+00:00"),
        ("2019-09-18T12:34:56-0330", "2019-09-18T16:04:56+00:00"),
        ("1988-07-01 12:00", "1988-07-01T03:00:00+00:00"),  # summer time in China
        ("1969-12-31T23:59:59.25Z", "1969-12-31T23:59:59.250000+00:00"),
    ],
)
def test_moments(value: str, expected: str) -> None:
    assert moment(value) == (expected, None)


def test_another_zone() -> None:
    assert moment("2019-09-18 12:00", "UTC") == ("2019-09-18T12:00:00+00:00", None)


@pytest.mark.parametrize("value", ["2019-9-18 25:00", "2019-9-18 12:60", "2019-9-18 12:00:61", "2019-9-18T12:00+19:00"])
def test_impossible_times(value: str) -> None:
    assert moment(value) == (None, "date-unreadable")


def test_values_that_are_dates_already() -> None:
    days, moments = [dt.date(2020, 1, 2), None, dt.date(9999, 12, 31)], [dt.datetime(2020, 1, 2, 12), None]
    found, problems = dates.date(pa.array(days))
    assert found.to_pylist() == [days[0], None, None] and problems.to_pylist() == [None, None, "long-term"]
    utc = dates.timestamp(pa.array(moments, pa.timestamp("s")))[0]
    assert utc.to_pylist() == [dt.datetime(2020, 1, 2, 4, tzinfo=dt.UTC), None]
    aware = pa.array(moments, pa.timestamp("ms", "UTC"))
    assert dates.timestamp(aware)[0].to_pylist() == [dt.datetime(2020, 1, 2, 12, tzinfo=dt.UTC), None]


def test_chunks_and_emptiness() -> None:
    found, problems = dates.date(pa.chunked_array([["2020-6-18"], ["x"], []], pa.string()))
    assert found.to_pylist() == [dt.date(2020, 6, 18), None] and problems.to_pylist() == [None, "date-unreadable"]
    assert len(dates.date(pa.array([], pa.string()))[0]) == len(dates.timestamp(pa.array([], pa.string()))[0]) == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("45123", "2023-07-15T16:00:00+00:00"),
        ("45123.5", "2023-07-16T04:00:00+00:00"),
        ("４５１２３", "2023-07-15T16:00:00+00:00"),
        ("45123.999999999", "2023-07-16T16:00:00+00:00"),  # a fraction that stands for midnight rounds to it
        ("45123.00001157407", "2023-07-15T16:00:01+00:00"),
        ("10000", "1927-05-17T16:00:00+00:00"),
        ("2020-1-2", "2020-01-01T16:00:00+00:00"),
        ("20200102", "2020-01-01T16:00:00+00:00"),
    ],
)
def test_day_numbers_of_a_spreadsheet(value: str, expected: str) -> None:
    found, problems = dates.timestamp(pa.array([value]), serial=True)
    assert (found[0].as_py().isoformat(), problems[0].as_py()) == (expected, None)


def test_day_numbers_count_from_a_year_1900_that_never_was() -> None:
    """What openpyxl and every spreadsheet say: 36526 is 2000-01-01, and 9999-12-31 is 2958465."""
    found, problems = dates.date(pa.array(["36526", "43831", "2958465"]), serial=True)
    assert found.to_pylist() == [dt.date(2000, 1, 1), dt.date(2020, 1, 1), None]
    assert problems.to_pylist() == [None, None, "long-term"]


@pytest.mark.parametrize("value", ["2019", "201903", "1", "60", "0", "-45123", "45123,5", "9999", "123456", "4512E1"])
def test_other_numbers_are_no_day(value: str) -> None:
    """A year or a month written as a number would become a day of 1905 or 2452."""
    assert dates.date(pa.array([value]), serial=True)[1].to_pylist() == ["date-unreadable"]


def test_day_numbers_are_read_only_where_asked() -> None:
    assert dates.date(pa.array(["45123"]))[1].to_pylist() == ["date-unreadable"]
    kept = dates.date(pa.chunked_array([["45123", None], ["N/A"]], pa.string()), serial=True)
    assert [part.to_pylist() for part in kept] == [[dt.date(2023, 7, 16), None, None], [None, None, None]]


def test_real_dates(shared_data: Path) -> None:
    for register in sorted((shared_data / "enterprises").glob("*.csv")):
        with open(register, encoding="utf-8-sig", newline="") as lines:
            values = [row["注册日期"] for row in csv.DictReader(lines)]
        found, problems = dates.date(pa.array(values))
        assert problems.null_count == len(values) > 1000
        assert {each.year for each in found.to_pylist()} == {int(register.name[:4])}


WRITTEN = st.builds(
    "{:04}{}{:02}{}{:02}{}".format,
    st.integers(998, 1002) | st.integers(1898, 2101) | st.just(9999),
    st.sampled_from("--/"),
    st.integers(0, 13),
    st.sampled_from("--."),
    st.integers(0, 32),
    st.sampled_from(["", "T08:30:15", " 23:59:59", " 24:00:00", "T12:60:00", "T00:00:61Z", "T12:30:00Z", "T12:30:00z"])
    | st.builds("T{:02}:00:00{}{:02}:{:02}".format, st.integers(0, 24), st.sampled_from("+-"), st.integers(0, 15), st.integers(0, 60)),
)  # fmt: skip


@given(st.lists(st.none() | WRITTEN, max_size=30), st.integers(0, 2), st.booleans())
def test_digits_in_their_places_say_what_the_long_way_round_says(
    values: list[str | None], start: int, serial: bool
) -> None:
    """A space after it makes a value go the long way, and means nothing."""
    column = pa.array(values, pa.string()).slice(start)
    spaced = pc.binary_join_element_wise(column, " ", "")
    for read in (dates.date, dates.timestamp):
        for short, long in zip(read(column, serial=serial), read(spaced, serial=serial), strict=True):
            assert short.equals(long)
